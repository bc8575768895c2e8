"""Pipeline: runs the stages in order, and writes their summary."""

import logging
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from slams_ray import storage
from slams_ray.artifacts import fingerprint, flatten, to_plain
from slams_ray.config import PipelineConfig
from slams_ray.config.pipeline import unread_fields
from slams_ray.errors import ConfigError
from slams_ray.runtime import cluster
from slams_ray.runtime.progress import log_kept
from slams_ray.runtime.session import TrackingSession
from slams_ray.runtime.workspace_lock import workspace_lock
from slams_ray.stages import evaluate
from slams_ray.stages.config_file import CONFIG_NAME, dump_config
from slams_ray.stages.paths import check_data, check_weights
from slams_ray.stages.pipeline_run import PipelineRun
from slams_ray.stages.stage import Result, StageContext
from slams_ray.stages.steps import groups, stage_names, steps
from slams_ray.stages.summary import log_scores, publish, summarise
from slams_ray.stages.together import run_group
from slams_ray.systems.registry import SYSTEMS

logger = logging.getLogger(__name__)

LOG_NAME = "log.txt"
"""File in a workspace on this machine with the log lines of its runs."""


@dataclass(frozen=True, kw_only=True)
class PipelineResult:
    """Results of the finished stages by name, in order, and their summary.

    Some stages are missing if the pipeline was asked to stop early.
    """

    results: dict[str, Result]
    summary: dict[str, Any]


def run(
    config: PipelineConfig, workspace: str, recipe: str, until: str | None = None
) -> PipelineResult:
    """Runs the stages up to `until`, or all stages. Finished stages are kept.

    Writes `<workspace>/config.yaml`, and `<workspace>/summary.json` once all stages have run.

    Raises:
        ConfigError: another driver works in the workspace, or there is no stage `until` or no
            directory of data.
    """
    check_stage(config, until)
    check_data(config)
    name = f"{recipe} {config.system} seed {config.seed}"
    with (
        workspace_lock(workspace, recipe),
        nullcontext() if "://" in workspace else log_kept(storage.join(workspace, LOG_NAME)),
        open_session(config, workspace, name) as session,
    ):
        context = make_context(config, session)
        _keep_config(recipe, config, workspace)
        results = run_stages(config, context, until)
        summary = summarise(context, config, results, recipe)
        if evaluate.STAGE in results:
            publish(context, config, results, summary)
        elif session.parent is not None:
            log_scores(session.parent, summary)
        return PipelineResult(results=results, summary=summary)


def _keep_config(recipe: str, config: PipelineConfig, workspace: str) -> None:
    """Writes the settings of a run into its workspace, unless they are there."""
    path = storage.join(workspace, CONFIG_NAME)
    text = dump_config(recipe, config).encode()
    if not storage.exists(path) or storage.read_bytes(path) != text:
        storage.write_bytes(path, text)


def connect(dashboard: bool) -> None:
    """Connects to the cluster before the first stage does, to start a local one with dashboard."""
    cluster.connect(dashboard)


def open_session(
    config: PipelineConfig, workspace: str, name: str, group: str | None = None
) -> TrackingSession:
    """Opens the tracked run of a pipeline. A rerun with the same name and settings continues it.

    Args:
        group: id of the parent run, or None.
    """
    unread = unread_fields(config.trained_systems)
    read = {name: value for name, value in to_plain(config).items() if name not in unread}
    settings = {k: v for k, v in read.items() if k not in ("compute", "tracking")}
    return TrackingSession(
        workspace,
        config.tracking.experiment,
        name,
        fingerprint(name, settings, {} if group is None else {"group": group}),
        flatten(read),
        group,
        config.tracking.named_tags,
    )


def make_context(config: PipelineConfig, session: TrackingSession) -> StageContext:
    """Returns the context in which the stages of a pipeline run."""
    return StageContext(
        workspace=session.workspace,
        compute=config.compute,
        tracking=config.tracking,
        session=session,
    )


def run_stages(
    config: PipelineConfig, context: StageContext, until: str | None = None
) -> dict[str, Result]:
    """Runs the stages in order. Finished stages are kept.

    Args:
        until: the last stage to run; None runs all.

    Raises:
        ConfigError: the pipeline has no such stage, or a system lacks a file or a library.
    """
    check_stage(config, until)
    names = [name for name, _ in steps(config)]
    run = PipelineRun(config, replace(context, places=_places(config)))
    for system in config.trained_systems:
        SYSTEMS[system].check(run.config)
    last = len(names) if until is None else len(names) - names[::-1].index(until)
    check_weights(run.config, names[:last])
    for group in groups(config, steps(config)[:last]):
        run_group(group, run)
    return run.results


def _places(config: PipelineConfig) -> dict[str, str]:
    """Returns the name of each stage -> its place among all, such as 3/21."""
    names = stage_names(config)
    return {name: f"{place}/{len(names)}" for place, name in enumerate(names, start=1)}


def check_stage(config: PipelineConfig, stage: str | None) -> None:
    """Raises ConfigError if a stage is given that the pipeline does not have."""
    names = stage_names(config)
    if stage is not None and stage not in names:
        raise ConfigError(
            f"the pipeline has no stage {stage!r}, expected one of {', '.join(names)}"
        )
