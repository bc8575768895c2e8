"""Compares systems and refinements under one protocol, over random seeds.

All systems share data, backbone, crops, scales and the way of choosing a threshold. Each system has
its own threshold; each pair of system and refinement has its own segmentation network. A stage that
several of them need runs once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

from slams_ray import storage
from slams_ray.config import PipelineConfig, RefinementConfig
from slams_ray.config.pipeline import LABEL_SOURCES, MapSystem, SystemName
from slams_ray.errors import ConfigError
from slams_ray.runtime.workspace_lock import workspace_lock
from slams_ray.stages import evaluate, pipeline, prepare
from slams_ray.studies.comparison import Score
from slams_ray.studies.scores import PRIMARY, Show, Study, collect, finish, no_show
from slams_ray.studies.trials import Point, of_trial, run_grid, to_report, to_scores
from slams_ray.systems.registry import titles

NAME = "compare"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is compared.

    Attributes:
        systems: names of systems, the baseline first.
        refinements: refinements between maps and labels, their steps joined by +.
        until: the last stage to run, such as refine for no segmentation networks.
    """

    systems: tuple[SystemName, ...]
    refinements: tuple[str, ...]
    until: str = evaluate.STAGE

    @classmethod
    def of(cls, config: PipelineConfig) -> "Rows":
        """Returns the systems and the refinement of a recipe."""
        return cls(systems=config.systems, refinements=("+".join(config.refinement.steps),))

    def pipelines(self, config: PipelineConfig) -> list[tuple[str, PipelineConfig]]:
        """Returns the pipelines of one random seed, each with the name of its refinement.

        Raises:
            ConfigError: a refinement is unknown.
        """
        maps: list[MapSystem] = [s for s in self.systems if s not in LABEL_SOURCES]  # type: ignore[misc]
        # The order of systems stays the same, so all pipelines of a seed share their maps.
        return [
            (
                refinement if has_maps else "",
                replace(
                    config,
                    system=system,
                    baselines=tuple(maps),
                    refinement=parse_refinement(refinement),
                ),
            )
            for system in self.systems
            for has_maps in (system not in LABEL_SOURCES,)
            for refinement in (self.refinements if has_maps else self.refinements[:1])
        ]


def parse_refinement(name: str) -> RefinementConfig:
    """Parses the steps of a refinement, such as walk+crf.

    Raises:
        ConfigError: a step is unknown, repeated, or in the wrong place.
    """
    known = get_args(get_args(RefinementConfig.__annotations__["steps"])[0])
    steps = name.split("+")
    unknown = [step for step in steps if step not in known]
    if unknown:
        raise ConfigError(
            f"there is no refinement {unknown[0]!r}: join some of {', '.join(known)} by +"
        )
    return RefinementConfig(steps=tuple(steps))  # type: ignore[arg-type]


def run(
    config: PipelineConfig,
    workspace: str,
    recipe: str,
    seeds: Sequence[int],
    rows: Rows | None = None,
    max_concurrent: int | None = None,
    show: Show = no_show,
) -> list[Score]:
    """Runs each random seed in a trial of its own, and writes `<workspace>/compare.json`.

    Finished stages are kept.

    Args:
        seeds: random seeds.
        rows: systems and refinements; None takes those of the recipe.
        max_concurrent: number of seeds at the same time; None means as many as the cluster's nodes
            or GPUs allow.
        show: called with the scores, before an error is raised.

    Raises:
        ConfigError: a refinement is unknown, or another driver works in the workspace.
        TrainingError: some seeds failed. The table holds the others, and the same command tries
            the failed ones again.
    """
    rows = rows or Rows.of(config)
    _, config = rows.pipelines(config)[-1]
    name = f"{NAME} {recipe}"
    with (
        workspace_lock(workspace, name),
        pipeline.open_session(config, workspace, name) as session,
    ):
        # Data is prepared once, before concurrent trials need it.
        prepare.run(pipeline.make_context(config, session), config.data)
        parent = session.open()
        trials = run_grid(
            partial(run_seed, config, workspace, recipe, rows, parent.run_id),
            {"seed": list(seeds)},
            config,
            storage.join(workspace, NAME, "_".join((*rows.systems, *rows.refinements, rows.until))),
            _label,
            f"{config.system}/{PRIMARY if config.has_maps else 'segmentation_miou'}",
            max_concurrent,
        )
        scores = [
            score
            for trial in trials
            if trial.history
            for score in to_scores(trial.history[-1], trial.point["seed"])
        ]
        failed = [_label(trial.point) for trial in trials if trial.error]
        names = titles(rows.systems)
        study = Study(workspace=workspace, name=NAME, run=parent, titles=names)
        finish(study, scores, show, failed, len(trials))
        return scores


def _label(point: Point) -> str:
    return f"seed {point['seed']}"


def run_seed(
    config: PipelineConfig,
    workspace: str,
    recipe: str,
    rows: Rows,
    parent_id: str | None,
    point: Point,
) -> Iterator[dict[str, float]]:
    """Yields one report with the scores of every system and refinement."""
    config = of_trial(config, point["seed"])
    name = f"{recipe} seed {config.seed}"
    with pipeline.open_session(config, workspace, name, parent_id) as session:
        scores: dict[Score, None] = {}
        for refinement, own in rows.pipelines(config):
            context = pipeline.make_context(own, session)
            results = pipeline.run_stages(own, context, rows.until)
            # Scores of seeds do not depend on the refinement, and come once.
            scores |= dict.fromkeys(collect(results, own, refinement))
        report = to_report(list(scores))
        if session.parent is not None:
            session.parent.log_metrics({k.replace("+", "_"): v for k, v in report.items()})
    yield report
