"""Predicts masks of new photographs: few in this process without Ray, many on a cluster."""

import logging
from collections.abc import Sequence
from typing import Any

from slams_ray.errors import DataError
from slams_ray.model.model import load_model
from slams_ray.model.shard_work import NUM_EMPTY, PredictMapper
from slams_ray.runtime.progress import Progress
from slams_ray.stages.predict_inputs import Photographs, check_output, find_photographs
from slams_ray.stages.predict_output import log_masks, note_written, remove_file_shards
from slams_ray.stages.predict_settings import CLUSTER_FROM_IMAGES, PredictSettings

logger = logging.getLogger(__name__)


def run(
    model: str, images: str, output: str, how: PredictSettings | None = None, **changes: Any
) -> int:
    """Writes a mask for each image.

    Size, scales and precision are those of the evaluation. Photographs are turned upright by their
    EXIF orientation.

    Args:
        model: a checkpoint, the workspace of a finished pipeline, or an MLflow model.
        images: see `find_photographs`.
        output: directory or URI for the masks.
        how: None is the default.
        changes: instead of `how`, its `changes`, and `crf`.

    Returns:
        number of masks written.

    Raises:
        ConfigError: a photograph, or a file that is no mask of an earlier run, would be
            overwritten.
    """
    how = how or PredictSettings(crf=changes.pop("crf", False), changes=changes)
    found = find_photographs(images, output)
    needs_cluster = bool(found.shards) or how.output_format == "parquet"
    image_ids = check_output(found, output, how.output_format)
    is_large = needs_cluster or len(found.sources) >= CLUSTER_FROM_IMAGES
    if how.use_cluster or (how.use_cluster is None and is_large):
        from slams_ray.stages import predict_cluster

        return predict_cluster.run(model, found, output, how, image_ids)
    if needs_cluster:
        raise DataError(
            f"{images} or the output is Parquet, which is read and written in shards by Ray: leave "
            "out --cluster never"
        )
    return _predict_here(model, found, output, how, image_ids)


def _predict_here(
    model: str, found: Photographs, output: str, how: PredictSettings, image_ids: Sequence[str]
) -> int:
    sources = found.sources
    loaded = load_model(
        model,
        crf=how.crf,
        tile_px=how.tile_px,
        max_image_pixels=how.max_image_pixels,
        **how.changes,
    )
    note_written(output, image_ids)
    remove_file_shards(output, image_ids)
    mapper = PredictMapper(loaded, output, how.on_bad_image)
    progress = Progress("predict", len(sources), "images")
    # On a GPU threads read and write the images of a group. A CPU has nothing to wait for.
    size = how.images_per_shard if loaded.predictor.ahead else 1
    num_bad = num_empty = 0
    for start in range(0, len(sources), size):
        _, summary = mapper({}, sources[start : start + size])
        for _, problem in summary["bad"]:
            logger.warning("skipped: %s", problem)
        num_bad += len(summary["bad"])
        num_empty += summary[NUM_EMPTY]
        progress.advance(min(start + size, len(sources)))
    num_written = len(sources) - num_bad
    log_masks(output, num_written, num_empty, num_bad)
    return num_written
