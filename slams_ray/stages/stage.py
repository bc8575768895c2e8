"""Runs a stage unless its output exists, and records what it did."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from slams_ray import provenance, storage
from slams_ray.artifacts import (
    RECORD_NAME,
    Record,
    changed_fields,
    fingerprint,
    flatten,
    read_record,
    write_record,
)
from slams_ray.config import ComputeConfig, TrackingConfig
from slams_ray.errors import ArtifactError
from slams_ray.runtime.cluster import check_device, describe
from slams_ray.runtime.session import TrackingSession
from slams_ray.runtime.tracking import Run
from slams_ray.stages.error_file import remove_error, write_error

logger = logging.getLogger(__name__)

CONTENT = ("source", "prepare")
"""Inputs that are digests of the data set: of its source, and of its prepared form."""


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """Context of the stages: workspace, resources, tracking. Nothing in it changes a result.

    Attributes:
        prefix: start of the names of stages in the log and in MLflow.
        places: name of a stage -> its place among all stages, such as 3/21, for the log.
        own_outputs: output directories of the finished stages; the stages fill it.
    """

    workspace: str
    compute: ComputeConfig
    tracking: TrackingConfig
    session: TrackingSession
    prefix: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    own_outputs: set[str] = field(default_factory=set)

    @property
    def name_width(self) -> int:
        """Width of the column of names in the log."""
        return max(map(len, self.places), default=18)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at the work of a stage.

    Attributes:
        nodes: node -> number of its shards or workers; the work fills it.
        devices: kind of device -> number of its shards or workers; the work fills it.
        earlier: other output directories of the stage, whose unchanged shards are reused.
        shard_prefix: start of the fingerprint of every shard. It covers all inputs and settings
            except the content of the data set.
    """

    output_dir: str
    fingerprint: str
    run: Run
    nodes: Counter[str] = field(default_factory=Counter)
    devices: Counter[str] = field(default_factory=Counter)
    earlier: Sequence[str] = ()
    shard_prefix: str = ""

    def shard_fingerprints(self, contents: Mapping[str, str]) -> dict[str, str]:
        """Returns shard name -> fingerprint of its output, from name -> digest of its content."""
        return {name: f"{self.shard_prefix}-{content}" for name, content in contents.items()}

    def earlier_shards(self, *parts: str) -> list[str]:
        """Returns the directories of shards in earlier outputs of the stage."""
        return [storage.join(directory, *parts) for directory in self.earlier]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of the work of a stage, which becomes part of the record."""

    num_rows: int
    metrics: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """Output directory and record of a finished stage; cached if this run did not compute it."""

    output_dir: str
    record: Record
    cached: bool

    def path(self, *parts: str) -> str:
        """Returns a path in the output directory."""
        return storage.join(self.output_dir, *parts)


def is_finished(
    context: StageContext, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]
) -> bool:
    """Whether the output of `run_stage` with the same arguments exists."""
    output_dir = storage.join(context.workspace, stage, fingerprint(stage, config, inputs))
    return read_record(output_dir) is not None


def run_stage(
    context: StageContext,
    stage: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    work: Callable[[Attempt], Outcome],
) -> Result:
    """Runs a stage unless its output exists.

    Args:
        config: settings that the output depends on, as plain values.
        inputs: fingerprints of outputs, or digests of data, that the output depends on. Digests of
            the data set have the names in `CONTENT`.
        work: writes into the attempt's output_dir. After a kill, it is called again and continues.
    """
    own_fingerprint = fingerprint(stage, config, inputs)
    output_dir = storage.join(context.workspace, stage, own_fingerprint)
    name = context.prefix + stage
    record = read_record(output_dir)
    if record is not None:
        context.own_outputs.add(output_dir)
        _log_kept(f"{name:{context.name_width}}", record, output_dir)
        return Result(output_dir=output_dir, record=record, cached=True)
    check_device(context.compute.device)
    shown = f"{name:{context.name_width}}"
    place = f"[{context.places[name]}] " if name in context.places else ""
    logger.info("%s started   %s%s", shown, place, output_dir)
    _explain(context, shown, stage, config, inputs)
    started = time.monotonic()
    with context.session.stage_run(stage, name) as run:
        run.log_params(flatten(config))
        run.set_tags({"slams.fingerprint": own_fingerprint, "slams.output": output_dir})
        attempt = Attempt(
            output_dir=output_dir,
            fingerprint=own_fingerprint,
            run=run,
            earlier=_earlier_outputs(context.workspace, stage, own_fingerprint),
            shard_prefix=fingerprint(stage, config, _without_content(inputs)),
        )
        try:
            outcome = work(attempt)
        except Exception as error:
            write_error(output_dir, error, run)
            raise
        seconds = round(time.monotonic() - started, 2)
        record = _record(stage, config, inputs, attempt, outcome, seconds)
        _keep(record, outcome, attempt)
    context.own_outputs.add(output_dir)
    for warning in record.warnings:
        logger.warning("%s %s", shown, warning)
    logger.info("%s done in   %.1f s  %s", shown, record.seconds, _scores(outcome.metrics))
    return Result(output_dir=output_dir, record=record, cached=False)


def _record(
    stage: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    attempt: Attempt,
    outcome: Outcome,
    seconds: float,
) -> Record:
    return Record(
        stage=stage,
        fingerprint=attempt.fingerprint,
        config=dict(config),
        inputs=dict(inputs),
        seconds=seconds,
        num_rows=outcome.num_rows,
        metrics={k: v for k, v in outcome.metrics.items() if isfinite(v)},
        notes=outcome.notes,
        warnings=list(outcome.warnings),
        nodes=dict(attempt.nodes),
        devices=dict(attempt.devices),
        versions=provenance.versions(),
        arithmetic=provenance.arithmetic(),
        commit=provenance.commit(),
        has_changes=provenance.has_changes(),
        mlflow_run_id=attempt.run.run_id,
    )


def _keep(record: Record, outcome: Outcome, attempt: Attempt) -> None:
    """Tracks the record and writes it. Its presence means that the stage is finished."""
    run, output_dir = attempt.run, attempt.output_dir
    run.log_metrics(outcome.metrics | {"seconds": record.seconds})
    run.set_tags({"slams.commit": record.commit or "unknown"} | describe())
    if record.warnings:
        run.set_tags({"slams.warnings": "\n".join(record.warnings)})
    write_record(output_dir, record)
    remove_error(output_dir)
    run.log_file(storage.join(output_dir, RECORD_NAME), "record")


def _without_content(inputs: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in inputs.items() if name not in CONTENT}


def _earlier_outputs(workspace: str, stage: str, current: str) -> list[str]:
    parent = storage.join(workspace, stage)
    return [storage.join(parent, name) for name in storage.list_names(parent) if name != current]


def _log_kept(name: str, record: Record, output_dir: str) -> None:
    now = provenance.arithmetic()
    if record.arithmetic == now:
        logger.info("%s kept      %s", name, output_dir)
        return
    logger.warning(
        "%s kept      %s  (another version of the arithmetic computed it: %s, now %s; remove it "
        "to compute it again)",
        name,
        output_dir,
        record.arithmetic or "not recorded",
        now,
    )


def _explain(
    context: StageContext,
    name: str,
    stage: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> None:
    """Logs how the inputs and settings of a stage differ from an output of an earlier run."""
    parent = storage.join(context.workspace, stage)
    outputs = {storage.join(parent, name) for name in storage.list_names(parent)}
    records = map(_readable_record, sorted(outputs - context.own_outputs))
    earlier = [record for record in records if record is not None]
    if not earlier:
        return
    differences = min((changed_fields(r, config, inputs) for r in earlier), key=len)
    shown = "; ".join(differences[:4]) + (" ..." if len(differences) > 4 else "")
    logger.info("%s differs from an earlier output in %s", name, shown)


def _readable_record(directory: str) -> Record | None:
    """Reads a record for the log. A damaged record of another output is only logged."""
    try:
        return read_record(directory)
    except ArtifactError as error:
        logger.warning("%s", error)
        return None


def _scores(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {_shown(name, value)}" for name, value in metrics.items())


def _shown(name: str, value: float) -> str:
    return str(int(value)) if name.startswith("num_") else f"{value:.4f}"
