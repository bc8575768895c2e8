"""Scores of a study: collected from finished stages, and published as table and figure."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slams_ray import storage
from slams_ray.errors import TrainingError
from slams_ray.figures.canvas import to_png
from slams_ray.figures.scores import comparison_figure
from slams_ray.runtime.tracking import Run
from slams_ray.stages import evaluate, refine, search_threshold, train_affinity
from slams_ray.stages.stage import Result
from slams_ray.studies.comparison import Score, by_method, spreads

Show = Callable[[Sequence[Score]], None]

PRIMARY = "seed_miou"
METRICS = {
    PRIMARY: (search_threshold.STAGE, "{system}_seed_miou"),
    "mean_miou": (search_threshold.STAGE, "{system}_mean_miou"),
    "foreground_precision": (search_threshold.STAGE, "{system}_seed_precision"),
    "foreground_recall": (search_threshold.STAGE, "{system}_seed_recall"),
    "best_threshold": (search_threshold.STAGE, "{system}_best_threshold"),
    "crf_miou": (train_affinity.LABELS_STAGE, "refined_miou"),
    "walk_miou": (f"{search_threshold.STAGE}_walk", "{system}_walk_miou"),
    "pixel_adaptive_miou": (
        f"{search_threshold.STAGE}_pixel_adaptive",
        "{system}_pixel_adaptive_miou",
    ),
    "refined_miou": (refine.STAGE, "refined_miou"),
    "segmentation_miou": (evaluate.STAGE, "segmentation_miou"),
}
"""Metric of a study -> stage, and name in the record of the stage."""
FIGURE_METRICS = (PRIMARY, "walk_miou", "refined_miou", "segmentation_miou")


def collect(results: Mapping[str, Result], system: str, seed: int) -> list[Score]:
    """Returns the scores of one system in the stages that have finished."""
    scores = []
    for metric, (stage, name) in METRICS.items():
        found = results[stage].record.metrics if stage in results else {}
        value = found.get(name.format(system=system))
        if value is not None:
            scores.append(Score(method=system, seed=seed, metric=metric, value=value))
    return scores


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
    values = {m: by_method(scores, m) for m in FIGURE_METRICS}
    shown = {
        metric: {method: list(of_seeds.values()) for method, of_seeds in methods.items()}
        for metric, methods in values.items()
        if methods
    }
    storage.write_bytes(figure, to_png(comparison_figure(shown, study.titles)))
    for path in (table, figure):
        run.log_file(path)
    run.log_table(rows, f"{name}_rows.json")
    run.log_metrics(
        {
            f"{method}/{metric}": entry.mean
            for method, metrics in spreads(scores).items()
            for metric, entry in metrics.items()
        }
    )
