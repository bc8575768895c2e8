"""Mapping of shards to shards with Ray Data. Outputs are atomic, and a rerun continues."""

import gc
import json
import logging
import pickle
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import ray

from slams_ray import errors, storage
from slams_ray.runtime import cluster
from slams_ray.runtime.allocator import keep_freed_memory
from slams_ray.runtime.attempts import AttemptLog
from slams_ray.runtime.devices import device_name
from slams_ray.runtime.finished_shards import KEY, ShardNote, read_notes, take_over
from slams_ray.runtime.pools import Pool
from slams_ray.runtime.progress import Progress

logger = logging.getLogger(__name__)

Summary = dict[str, Any]
ShardWork = Callable[[dict[str, pa.Table], Any], tuple[pa.Table, Summary]]
"""(input tables by name, payload) -> output table and a JSON-serialisable summary of counts."""


@runtime_checkable
class Traced(Protocol):
    """Work that reports the current image, so that a crashing image can be identified.

    Attributes:
        trace: the work calls it before each image, unless it is None.
        crashed: images that crashed a process; the work must refuse them.
    """

    trace: Callable[[str], None] | None
    crashed: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class ShardInput:
    """A directory of shards and the columns to read from them.

    Attributes:
        remedy: what a message advises where a shard is damaged.
    """

    directory: str
    columns: tuple[str, ...]
    remedy: str = storage.REMAKE


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """The shard mapping of one stage.

    Attributes:
        label: name in progress lines.
        names: file names of the shards; every output has the name of its input.
        inputs: input tables of the work; each is read from the shard of the same name.
        make_work: builds the work once per process, and loads networks there.
        payloads: shard name -> additional argument of the work.
        pool: called when Ray is connected; returns the actors that hold networks or a GPU. None, or
            a function that returns None, runs stateless tasks.
        rows_per_group: row-group size of the outputs.
        run_token: separates the attempts of this run from those of earlier runs.
        nodes: number of shards made by each node; filled while shards arrive.
        devices: number of shards made by each kind of device; filled while shards arrive.
        fingerprints: shard name -> fingerprint, for shards whose fingerprint differs from the
            job's. It shows whether a shard of an earlier output is still current.
        earlier: directories of earlier outputs, from which current shards are copied.
    """

    label: str
    names: Sequence[str]
    inputs: Mapping[str, ShardInput]
    output_dir: str
    fingerprint: str
    make_work: Callable[[], ShardWork]
    payloads: Mapping[str, Any] = field(default_factory=dict)
    pool: "Callable[[], Pool | None] | None" = None
    rows_per_group: int | None = None
    run_token: str = field(default_factory=lambda: uuid.uuid4().hex)
    nodes: Counter[str] = field(default_factory=Counter)
    devices: Counter[str] = field(default_factory=Counter)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    earlier: Sequence[str] = ()

    def fingerprint_of(self, name: str) -> str:
        """Expected fingerprint of the output shard with this name."""
        return self.fingerprints.get(name, self.fingerprint)


class ShardMapper:
    """Callable that Ray Data distributes; it runs the work on one shard per call."""

    def __init__(self, job: ShardJob) -> None:
        self.job = job
        self.work: ShardWork | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        name, fingerprint = str(batch["name"][0]), str(batch["fingerprint"][0])
        try:
            note = self.map_shard(name, pickle.loads(batch["payload"][0]), fingerprint)
        except errors.SlamsError as error:
            # Returned and not raised, so that the driver raises it without Ray's traceback.
            packed = errors.packed(error)
            return {"name": [name], "error": [type(error).__name__], "result": [packed]}
        return {"name": [name], "error": [""], "result": [json.dumps(note)]}

    def map_shard(self, name: str, payload: Any, fingerprint: str | None = None) -> ShardNote:
        """Reads the inputs of a shard, runs the work, and writes the output atomically.

        Args:
            fingerprint: fingerprint of the output; None means that of the job.
        """
        attempts = self._begin(name)
        work = self._work(attempts)
        began = time.time()
        tables = {
            key: storage.read_table(
                storage.join(source.directory, name), list(source.columns), source.remedy
            )
            for key, source in self.job.inputs.items()
        }
        check_aligned(name, tables)
        table, summary = work(tables, payload)
        note = {
            "fingerprint": fingerprint or self.job.fingerprint,
            "summary": summary,
            "worked": (began, time.time()),
            "node": cluster.node_id(),
            "device": device_name(cluster.assigned_device()),
        }
        noted = table.replace_schema_metadata({KEY: json.dumps(note)})
        storage.write_table(storage.join(self.job.output_dir, name), noted, self.job.rows_per_group)
        attempts.end()
        return note

    def _begin(self, name: str) -> AttemptLog:
        path = storage.join(f"{self.job.output_dir}-attempts", f"{name}.json")
        attempts = AttemptLog(path, self.job.run_token)
        attempts.begin(f"{self.job.label}: shard {name}", cluster.node_id(), cluster.has_node)
        return attempts

    def _work(self, attempts: AttemptLog) -> ShardWork:
        """Returns the work, which is made after an attempt began: loading networks may crash."""
        if self.work is None:
            self.work = self.job.make_work()
        if isinstance(self.work, Traced):
            self.work.crashed = attempts.crashed
            # Each report is a write, so images are reported only after an attempt has died.
            self.work.trace = None if attempts.is_first else attempts.note
        return self.work


def check_aligned(name: str, tables: Mapping[str, pa.Table]) -> None:
    """Raises ArtifactError unless all tables contain the same image ids in the same order."""
    ids = {key: t.column("image_id").to_pylist() for key, t in tables.items()}
    if len({tuple(v) for v in ids.values()}) > 1:
        raise errors.ArtifactError(
            f"shard {name} contains different images in {', '.join(ids)}: the directories do not "
            "belong together, or one was changed by hand"
        )


def run_shards(job: ShardJob) -> Iterator[tuple[str, Summary]]:
    """Maps every shard that is not finished yet.

    The work runs while the result is iterated, so a caller that adds summaries up holds only a few
    of them; with many classes they are large.

    Yields:
        name and summary of every shard, in the order of the names, so that sums of fractions do not
        depend on which shard finished first.

    Raises:
        SlamsError: the error of the first failing shard; finished shards are kept.
    """
    finished = {n for n, note in read_notes(job.output_dir, _fingerprints(job, job.names)) if note}
    if job.earlier and len(finished) < len(job.names):
        missing = _fingerprints(job, [name for name in job.names if name not in finished])
        taken = take_over(job.earlier, job.output_dir, missing)
        finished |= taken
        if taken:
            logger.info("%s: %d of %d shards are unchanged", job.label, len(taken), len(job.names))
    waiting = [name for name in job.names if name not in finished]
    if finished:
        logger.info("%s: %d of %d shards are finished", job.label, len(finished), len(job.names))
    earlier = read_notes(
        job.output_dir, _fingerprints(job, [n for n in job.names if n in finished])
    )
    now = _map_with_ray(job, waiting) if waiting else iter(())
    early: dict[str, ShardNote] = {}
    for name in job.names:
        if name in finished:
            _, note = next(earlier)
        else:
            while name not in early:
                early.update([next(now)])
            note = early.pop(name)
        if note is None:
            raise errors.ArtifactError(
                f"{job.label}: shard {name} in {job.output_dir} was removed while it was read: run "
                "the same command again, one run at a time"
            )
        job.nodes[note["node"]] += 1
        job.devices[note["device"]] += 1
        yield name, note["summary"]


def sum_shards(
    job: ShardJob, keys: Sequence[str], each: Callable[[str, Summary], None] | None = None
) -> dict[str, Any]:
    """Maps as `run_shards` and sums the given entries of the summaries.

    Args:
        keys: entries to sum.
        each: called with name and summary of every shard, in order.

    Returns:
        key -> sum: an int, or an int64 array if the entries are nested lists of one shape.
    """
    totals: dict[str, Any] = dict.fromkeys(keys, 0)
    for name, summary in run_shards(job):
        if each is not None:
            each(name, summary)
        for key in keys:
            totals[key] = totals[key] + np.asarray(summary[key], np.int64)
    return {key: int(v) if np.ndim(v) == 0 else v for key, v in totals.items()}


def _fingerprints(job: ShardJob, names: Sequence[str]) -> dict[str, str]:
    """Name -> expected fingerprint of the output shard."""
    return {name: job.fingerprint_of(name) for name in names}


def _map_with_ray(job: ShardJob, waiting: Sequence[str]) -> Iterator[tuple[str, ShardNote]]:
    cluster.connect()
    cluster.data_context()
    items = [
        {
            "name": name,
            "fingerprint": job.fingerprint_of(name),
            "payload": pickle.dumps(job.payloads.get(name)),
        }
        for name in waiting
    ]
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    options: dict[str, Any] = {"batch_size": 1, "batch_format": "numpy"}
    # Every process unpickles the job, so it must not contain the data of single shards.
    bare = replace(job, names=(), payloads={}, fingerprints={}, pool=None, earlier=())
    actors = job.pool() if job.pool is not None else None
    if actors is None:
        mapped = dataset.map_batches(ShardMapper(bare).__call__, **options)
    else:
        smallest = min(actors.num_actors, len(items))
        kept = replace(bare, make_work=partial(_make_kept, bare.make_work))
        mapped = dataset.map_batches(
            ShardMapper,
            fn_constructor_args=(kept,),
            compute=ray.data.ActorPoolStrategy(
                min_size=smallest, max_size=len(items) if actors.grows else smallest
            ),
            num_cpus=1,
            num_gpus=actors.num_gpus or None,
            **options,
        )
    progress = Progress(job.label, len(items), "shards")
    for number, row in enumerate(mapped.iter_rows(), start=1):
        if row["error"]:
            raise errors.unpacked(row["error"], row["result"])
        yield str(row["name"]), json.loads(row["result"])
        progress.advance(number)


def _make_kept(make_work: Callable[[], ShardWork]) -> ShardWork:
    """Builds the work of an actor, which lives as long as its process."""
    if cluster.assigned_device() == "cpu":
        keep_freed_memory()
    work = make_work()
    # Ray collects garbage in every process each 10 s while a pool waits for CPUs. With torch and a
    # network that takes 0.26 s, and no time once their objects are frozen.
    gc.freeze()
    return work
