"""Scores of a study: collected from finished stages, and published as table and figure."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from slams_ray import storage
from slams_ray.config import PipelineConfig
from slams_ray.errors import TrainingError
from slams_ray.figures.canvas import to_png
from slams_ray.figures.scores import comparison_figure
from slams_ray.runtime.tracking import Run
from slams_ray.stages import evaluate, refine, search_threshold
from slams_ray.stages.stage import Result
from slams_ray.studies.comparison import Score, by_method, spreads
from slams_ray.systems.registry import trainings_of

Show = Callable[[Sequence[Score]], None]

PRIMARY = "seed_miou"
SEED_METRICS = {
    PRIMARY: (search_threshold.STAGE, "{system}_seed_miou"),
    "threshold_range": (search_threshold.STAGE, "{system}_threshold_range"),
    "mean_miou": (search_threshold.STAGE, "{system}_mean_miou"),
    "foreground_precision": (search_threshold.STAGE, "{system}_seed_precision"),
    "foreground_recall": (search_threshold.STAGE, "{system}_seed_recall"),
    "best_threshold": (search_threshold.STAGE, "{system}_best_threshold"),
}
"""Metric of a system's seeds -> stage, and name in the record of the stage."""
LABEL_METRICS = {
    "walk_miou": (f"{search_threshold.STAGE}_walk", "{system}_walk_miou"),
    "pixel_adaptive_miou": (
        f"{search_threshold.STAGE}_pixel_adaptive",
        "{system}_pixel_adaptive_miou",
    ),
    "refined_miou": (refine.STAGE, "refined_miou"),
    "segmentation_miou": (evaluate.STAGE, "segmentation_miou"),
}
"""Metric that depends on the refinement -> stage, and name in the record of the stage."""
NUM_STEPS, SECONDS = "training_steps", "training_seconds"
HEADLINES = (PRIMARY, "threshold_range", "refined_miou", "segmentation_miou", NUM_STEPS, SECONDS)
"""Metrics of the table on the console; `<name>.json` has all."""
FIGURE_METRICS = (PRIMARY, "refined_miou", "segmentation_miou")


def collect(
    results: Mapping[str, Result], config: PipelineConfig, refinement: str = ""
) -> list[Score]:
    """Returns the scores of a pipeline's system in the stages that have finished.

    Args:
        refinement: name of the refinement, where a study has several.
    """
    of_seeds = _read(results, config, SEED_METRICS) + _costs(results, config)
    of_labels = _read(results, config, LABEL_METRICS)
    return of_seeds + [replace(score, refinement=refinement) for score in of_labels]


def _read(
    results: Mapping[str, Result], config: PipelineConfig, metrics: Mapping[str, tuple[str, str]]
) -> list[Score]:
    scores = []
    for metric, (stage, name) in metrics.items():
        found = results[stage].record.metrics if stage in results else {}
        value = found.get(name.format(system=config.system))
        if value is not None:
            scores.append(_score(config, metric, value))
    return scores


def _costs(results: Mapping[str, Result], config: PipelineConfig) -> list[Score]:
    """Returns steps and seconds of the trainings that the system's maps need."""
    own = trainings_of(config, [config.system] if config.has_maps else [])
    records = [results[training.stage].record for training in own if training.stage in results]
    if not records:
        return []
    return [
        _score(config, NUM_STEPS, sum(record.notes["num_steps"] for record in records)),
        _score(config, SECONDS, sum(record.seconds for record in records)),
    ]


def _score(config: PipelineConfig, metric: str, value: float) -> Score:
    return Score(method=config.system, seed=config.seed, metric=metric, value=value)


def no_show(scores: Sequence[Score]) -> None:
    """Shows nothing."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Where the scores of a study go.

    Attributes:
        name: name of the study and of its files.
        run: its tracked run.
        titles: method -> title in the figure, from top to bottom, the baseline first.
    """

    workspace: str
    name: str
    run: Run
    titles: Mapping[str, str]


def finish(
    study: Study, scores: Sequence[Score], show: Show, failed: Sequence[str], num_trials: int
) -> None:
    """Publishes and shows the scores, and then raises an error if trials failed.

    Args:
        failed: labels of the trials that failed.
        num_trials: number of all trials.

    Raises:
        TrainingError: trials failed.
    """
    if scores:
        publish(study, scores)
        show(scores)
    if failed:
        raise TrainingError(
            f"{len(failed)} of {num_trials} failed ({'; '.join(failed)}): see their errors above. "
            "The same command tries them again"
        )


def publish(study: Study, scores: Sequence[Score]) -> None:
    """Writes `<name>.json` and `<name>.png` into the workspace, and logs them and a table."""
    workspace, name, run = study.workspace, study.name, study.run
    rows = [vars(score) for score in scores]
    table = storage.join(workspace, f"{name}.json")
    storage.write_bytes(table, (json.dumps(rows, indent=1) + "\n").encode())
    figure = storage.join(workspace, f"{name}.png")
    columns = dict.fromkeys(s.column for s in scores if s.metric in FIGURE_METRICS)
    values = {column: by_method(scores, column) for column in columns}
    shown = {
        metric: {method: list(of_seeds.values()) for method, of_seeds in methods.items()}
        for metric, methods in values.items()
        if methods
    }
    run.log_file(table)
    if shown:
        storage.write_bytes(figure, to_png(comparison_figure(shown, study.titles)))
        run.log_file(figure)
    run.log_table(rows, f"{name}_rows.json")
    run.log_metrics(
        {
            f"{method}/{column.replace('+', '_').replace(' ', '/')}": entry.mean
            for method, columns in spreads(scores).items()
            for column, entry in columns.items()
        }
    )
