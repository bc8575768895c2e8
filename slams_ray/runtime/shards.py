"""Mapping shards to shards with Ray Data: outputs appear whole, a rerun continues."""

import json
import logging
import pickle
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import ray

from slams_ray import errors, storage
from slams_ray.runtime import cluster
from slams_ray.runtime.attempts import AttemptLog
from slams_ray.runtime.devices import device_name
from slams_ray.runtime.finished_shards import KEY, ShardNote, read_notes, take_over
from slams_ray.runtime.progress import Progress

logger = logging.getLogger(__name__)

Summary = dict[str, Any]
ShardWork = Callable[[dict[str, pa.Table], Any], tuple[pa.Table, Summary]]
"""(input tables by name, payload) -> output table and a JSON-able summary with integer counts."""


@runtime_checkable
class Traced(Protocol):
    """Work that tells which image it is at, so that one that crashes its process is known.

    Attributes:
        trace: to be called before each image where it is given.
        crashed: images that have crashed a process; to be refused.
    """

    trace: Callable[[str], None] | None
    crashed: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class ShardInput:
    """A directory of shards and the columns to read of them."""

    directory: str
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """One stage's mapping of shards.

    Attributes:
        label: name for progress lines.
        names: shard file names; every output has the name of its input.
        inputs: tables the work receives, opened by shard name.
        make_work: builds the work once per process (loads networks there).
        payloads: what the work receives beside the tables, by shard name.
        pool: called when Ray is connected, gives the actors that keep state such as networks or
            hold a GPU; None, or giving None, runs stateless tasks.
        rows_per_group: row-group size of the outputs.
        run_token: tells the attempts of this run from those of earlier ones.
        nodes: counts the shards that each node has made, as they come in.
        devices: counts the shards that each kind of device has made.
        fingerprints: fingerprint of single shards, by name, where it is not that of the job: it
            tells whether an output of an earlier job is still current.
        earlier: directories of earlier outputs, from which current shards are taken over.
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
        """What the output shard of that name must have been made from."""
        return self.fingerprints.get(name, self.fingerprint)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Actors that keep state.

    Attributes:
        num_actors: at the start.
        grows: whether nodes that join later get some. Ray does not grow pools of GPU actors.
    """

    num_actors: int
    num_gpus: float
    grows: bool = False


def pool(device: str, gpu_actors: int | None, per_gpu: int) -> Callable[[], Pool]:
    """So many actors on each GPU where GPUs are used, else one per CPU of the cluster."""
    on_gpus = gpu_pool(device, gpu_actors, per_gpu)

    def resolve() -> Pool:
        return on_gpus() or Pool(num_actors=cluster.num_cpus(), num_gpus=0, grows=True)

    return resolve


def gpu_pool(device: str, gpu_actors: int | None, per_gpu: int) -> Callable[[], Pool | None]:
    """Actors that share GPUs, so many on each; none where GPUs are not used."""

    def resolve() -> Pool | None:
        if not cluster.use_gpu(device):
            return None
        num_actors = per_gpu * (gpu_actors or cluster.num_gpus())
        return Pool(num_actors=num_actors, num_gpus=1 / per_gpu)

    return resolve


class ShardMapper:
    """Runs the work on one shard per call; the callable Ray Data distributes."""

    def __init__(self, job: ShardJob) -> None:
        self.job = job
        self.work: ShardWork | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        name, fingerprint = str(batch["name"][0]), str(batch["fingerprint"][0])
        try:
            note = self.map_shard(name, pickle.loads(batch["payload"][0]), fingerprint)
        except errors.SlamsError as error:
            # Returned, not raised, so that the driver sees our error and not a Ray traceback of it.
            return {"name": [name], "error": [type(error).__name__], "said": [errors.packed(error)]}
        return {"name": [name], "error": [""], "said": [json.dumps(note)]}

    def map_shard(self, name: str, payload: Any, fingerprint: str | None = None) -> ShardNote:
        """Reads the shard's inputs, does the work, and writes the output whole.

        Args:
            fingerprint: None means that of the job.
        """
        if self.work is None:
            self.work = self.job.make_work()
        attempts = self._begin(name)
        began = time.time()
        tables = {
            key: storage.read_table(storage.join(source.directory, name), list(source.columns))
            for key, source in self.job.inputs.items()
        }
        check_aligned(name, tables)
        table, summary = self.work(tables, payload)
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
        if isinstance(self.work, Traced):
            self.work.crashed = attempts.crashed
            # A note costs a write, so only where an attempt has died.
            self.work.trace = None if attempts.is_first else attempts.note
        return attempts


def check_aligned(name: str, tables: Mapping[str, pa.Table]) -> None:
    """Raises ArtifactError unless all tables hold the same image ids in the same order."""
    ids = {key: t.column("image_id").to_pylist() for key, t in tables.items()}
    if len({tuple(v) for v in ids.values()}) > 1:
        raise errors.ArtifactError(
            f"shard {name} holds different images in {', '.join(ids)}: the directories do not "
            "belong together, or one was changed by hand"
        )


def run_shards(job: ShardJob) -> Iterator[tuple[str, Summary]]:
    """Maps every shard that is not finished yet.

    The work is done as the result is iterated: who adds summaries up holds few at a time, and
    those of many classes are large.

    Yields:
        name and summary of every shard, in the order of the names: sums of fractions come out the
        same whatever finished first.

    Raises:
        SlamsError: what the work raised, once, for the first failing shard; finished shards stay.
    """
    finished = {n for n, note in read_notes(job.output_dir, _marks(job, job.names)) if note}
    if job.earlier and len(finished) < len(job.names):
        missing = _marks(job, [name for name in job.names if name not in finished])
        taken = take_over(job.earlier, job.output_dir, missing)
        finished |= taken
        if taken:
            logger.info("%s: %d of %d shards are unchanged", job.label, len(taken), len(job.names))
    waiting = [name for name in job.names if name not in finished]
    if finished:
        logger.info("%s: %d of %d shards are there", job.label, len(finished), len(job.names))
    earlier = read_notes(job.output_dir, _marks(job, [n for n in job.names if n in finished]))
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
                "the same command again, and one run at a time"
            )
        job.nodes[note["node"]] += 1
        job.devices[note["device"]] += 1
        yield name, note["summary"]


def sum_shards(
    job: ShardJob, keys: Sequence[str], each: Callable[[str, Summary], None] | None = None
) -> dict[str, Any]:
    """Maps as `run_shards` and adds up what the summaries hold under the keys.

    Args:
        each: called with name and summary of every shard, in order.

    Returns:
        key -> sum: an int, or an int64 array where the summaries hold nested lists of one shape.
    """
    totals: dict[str, Any] = dict.fromkeys(keys, 0)
    for name, summary in run_shards(job):
        if each is not None:
            each(name, summary)
        for key in keys:
            totals[key] = totals[key] + np.asarray(summary[key], np.int64)
    return {key: int(v) if np.ndim(v) == 0 else v for key, v in totals.items()}


def _marks(job: ShardJob, names: Sequence[str]) -> dict[str, str]:
    """Name -> fingerprint of its output shard."""
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
    # Every process unpickles the job, so it must not carry what belongs to single shards.
    bare = replace(job, names=(), payloads={}, fingerprints={}, pool=None, earlier=())
    actors = job.pool() if job.pool is not None else None
    if actors is None:
        mapped = dataset.map_batches(ShardMapper(bare).__call__, **options)
    else:
        smallest = min(actors.num_actors, len(items))
        mapped = dataset.map_batches(
            ShardMapper,
            fn_constructor_args=(bare,),
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
            raise errors.unpacked(row["error"], row["said"])
        yield str(row["name"]), json.loads(row["said"])
        progress.advance(number)
