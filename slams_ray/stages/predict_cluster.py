"""Predicts photographs on a Ray cluster, in shards that are kept when the command is repeated."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from slams_ray import storage
from slams_ray.artifacts import digest, fingerprint
from slams_ray.config import ComputeConfig, InferenceConfig
from slams_ray.model.checkpoint import find_checkpoint
from slams_ray.model.shard_work import NUM_EMPTY, PredictMapper
from slams_ray.model.source import CHECKPOINT_NAME, INFERENCE_NAME
from slams_ray.runtime import cluster
from slams_ray.runtime.shards import ShardInput, ShardJob, run_shards
from slams_ray.runtime.workspace_lock import workspace_lock
from slams_ray.stages.infer_activation import inference_pool
from slams_ray.stages.precision import resolved
from slams_ray.stages.predict_inputs import REPLACE, Photographs
from slams_ray.stages.predict_output import (
    FILES,
    PREDICTIONS,
    log_masks,
    note_written,
    remove_unfinished,
    shard_fingerprint,
)
from slams_ray.stages.predict_settings import PredictSettings
from slams_ray.stages.written import WRITTEN
from slams_ray.workers.segmentation import make_mapper

logger = logging.getLogger(__name__)

LABEL = "predict"
SKIPPED_NAME = "skipped.json"
MODEL = f"{WRITTEN}/model"
"""A user may have a network of their own in `<output>/model`."""


def run(
    model: str,
    photographs: Photographs,
    output: str,
    how: PredictSettings,
    image_ids: Sequence[str],
) -> int:
    """Predicts every photograph, and returns the number of good ones.

    The output has a shard in `predictions` for each group of photographs, `skipped.json` with bad
    images, and in `written/model` a copy of the network, which every node reads.

    Args:
        image_ids: ids of the photographs.
    """
    output = storage.absolute(output)
    with workspace_lock(output, LABEL):
        cluster.connect()
        settings, identity = _copy_model(model, output, how)
        job = _job(photographs, output, how, settings, identity)
        if how.output_format == FILES:
            note_written(output, image_ids)
        remove_unfinished(output, how.output_format, job.fingerprints)
        num_rows, num_empty, bad = 0, 0, []
        for _, summary in run_shards(job):
            num_rows += summary["num_rows"]
            num_empty += summary[NUM_EMPTY]
            bad += summary["bad"]
        storage.write_bytes(storage.join(output, SKIPPED_NAME), json.dumps(bad, indent=1).encode())
    if bad:
        logger.warning("bad images, see %s: %d, first: %s", SKIPPED_NAME, len(bad), bad[0][1])
    log_masks(output, num_rows, num_empty, len(bad))
    return num_rows


def _copy_model(model: str, output: str, how: PredictSettings) -> tuple[dict[str, Any], str]:
    """Writes the checkpoint into the output; returns its settings and a digest of both."""
    found = find_checkpoint(model, how.changes)
    settings = dict(found.settings)
    max_side_px = settings.pop("max_side_px")
    settings["scales"] = tuple(settings["scales"])
    # Shards must not mix precisions, so all nodes use the one that each of them has.
    inference = resolved(InferenceConfig(**settings), ComputeConfig())
    chosen = asdict(inference) | {"max_side_px": max_side_px}
    directory = storage.join(output, MODEL)
    storage.write_bytes(storage.join(directory, CHECKPOINT_NAME), found.data)
    storage.write_bytes(storage.join(directory, INFERENCE_NAME), json.dumps(chosen).encode())
    return chosen, digest([found.data])


def make_work(
    checkpoint: str, output: str, how: PredictSettings, precision: str
) -> Callable[[], PredictMapper]:
    """Returns what loads the network of a checkpoint in an actor."""
    files_in = output if how.output_format == FILES else None
    return partial(
        make_mapper,
        checkpoint,
        files_in,
        how.on_bad_image,
        crf=how.crf,
        tile_px=how.tile_px,
        max_image_pixels=how.max_image_pixels,
        precision=precision,
    )


def _job(
    photographs: Photographs,
    output: str,
    how: PredictSettings,
    settings: Mapping[str, Any],
    identity: str,
) -> ShardJob:
    names = ("crf", "tile_px", "max_image_pixels", "output_format")
    kept = {name: getattr(how, name) for name in names}
    mark = fingerprint(LABEL, dict(settings) | kept, {"model": identity})
    payloads = {}
    if photographs.sources:
        size = how.images_per_shard
        payloads = {
            f"{number:06d}.parquet": photographs.sources[start : start + size]
            for number, start in enumerate(range(0, len(photographs.sources), size))
        }
        contents = {
            # Without the path, so that a directory that moves is not predicted again.
            name: digest((s.image_id, photographs.states.get(s.path, s.path)) for s in sources)
            for name, sources in payloads.items()
        }
        inputs = {}
    else:
        contents = {name: digest([photographs.states[name]]) for name in photographs.shards}
        columns = ("image_id", "image")
        shards = ShardInput(directory=photographs.directory, columns=columns, remedy=REPLACE)
        inputs = {"images": shards}
    checkpoint = storage.join(output, MODEL, CHECKPOINT_NAME)
    return ShardJob(
        label=LABEL,
        names=list(contents),
        inputs=inputs,
        output_dir=storage.join(output, PREDICTIONS),
        fingerprint=mark,
        make_work=make_work(checkpoint, output, how, settings["precision"]),
        payloads=payloads,
        fingerprints={
            name: shard_fingerprint(how.output_format, mark, content)
            for name, content in contents.items()
        },
        pool=inference_pool(ComputeConfig()),
    )
