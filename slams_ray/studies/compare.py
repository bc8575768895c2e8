"""CAM beside SLAMs under one protocol, over seeds.

Both share data, backbone, crops, scales and the way their threshold is chosen; each is refined and
trained on separately, at its own threshold.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from slams_ray.config import PipelineConfig
from slams_ray.data.stored_maps import METHODS
from slams_ray.runtime import cluster
from slams_ray.runtime.fanout import run_side_by_side
from slams_ray.runtime.workspace_lock import workspace_lock
from slams_ray.stages import evaluate, pipeline, prepare
from slams_ray.studies.comparison import Score
from slams_ray.studies.scores import Show, collect, finish, no_show

NAME = "compare"


def run(
    config: PipelineConfig,
    workspace: str,
    recipe: str,
    seeds: Sequence[int],
    max_concurrent: int | None = None,
    show: Show = no_show,
) -> list[Score]:
    """Runs every seed in a Ray task and writes `<workspace>/compare.json`; finished stages are
    kept.

    Args:
        max_concurrent: seeds at the same time; None takes what the cluster's nodes or GPUs allow.
        show: called with the scores, before a failure is raised.

    Raises:
        ConfigError: another driver works in the workspace.
        TrainingError: seeds failed; the others are in the table, the same command tries again.
    """
    name = f"{NAME} {recipe}"
    with (
        workspace_lock(workspace, name),
        pipeline.open_session(config, workspace, name) as session,
    ):
        # Once, before the seeds ask for it side by side.
        prepare.run(pipeline.workplace(config, session), config.data)
        parent = session.open()
        parent.set_tags({"slams.budget": budget(config)})
        works = {
            f"seed {seed}": partial(
                run_seed, replace(config, seed=seed), workspace, recipe, parent.run_id
            )
            for seed in seeds
        }
        limit = max_concurrent or cluster.num_trainings(
            config.compute.train_workers, config.compute.device
        )
        found, failed = run_side_by_side(works, limit)
        scores = [score for label in works if label in found for score in found[label]]
        finish(scores, workspace, NAME, parent, METHODS, show, failed, len(works))
        return scores


def budget(config: PipelineConfig) -> str:
    """For how many epochs each method is trained, with what it starts from."""
    encoder, classifier, activation, segmentation = (
        f"{part.training.epochs:g}"
        for part in (config.encoder, config.classifier, config.activation, config.segmentation)
    )
    start = f"{classifier} (classifier) + " if config.activation.initialise_from_cam else ""
    return (
        f"cam {classifier} (classifier); slams {start}{encoder} (encoder) + {activation} "
        f"(activation network); after either {segmentation} (segmentation network)"
    )


def run_seed(
    config: PipelineConfig, workspace: str, recipe: str, parent_id: str | None
) -> list[Score]:
    """Both methods from images to network; the second finds the stages they share finished."""
    name = f"{recipe} seed {config.seed}"
    with pipeline.open_session(config, workspace, name, parent_id) as session:
        place = pipeline.workplace(config, session)
        scores = []
        for method in METHODS:
            results = pipeline.run_stages(config, place, evaluate.STAGE, method)
            scores += collect(results, method, config.seed)
        if session.parent is not None:
            session.parent.log_metrics({f"{s.method}/{s.metric}": s.value for s in scores})
        return scores
