"""Work of a process that segments images."""

from typing import Literal

from slams_ray.config import SegmentationConfig
from slams_ray.data.schema import DatasetDescription
from slams_ray.model.model import load_model
from slams_ray.model.predictor import make_predictor
from slams_ray.model.shard_work import PredictMapper
from slams_ray.runtime.cluster import assigned_device
from slams_ray.segmentation.shard_work import EvaluateMapper


def make_evaluator(
    path: str, config: SegmentationConfig, description: DatasetDescription
) -> EvaluateMapper:
    """Loads the network. It runs once in every actor that evaluates."""
    names, device = description.class_names, assigned_device()
    return EvaluateMapper(
        description, make_predictor(path, config.inference, names, device, config.crf)
    )


def make_mapper(
    checkpoint: str,
    files_in: str | None,
    on_bad_image: Literal["skip", "fail"],
    *,
    crf: bool,
    tile_px: int | None,
    max_image_pixels: int,
    precision: str,
) -> PredictMapper:
    """Loads the network. It runs once in every actor that predicts.

    Args:
        files_in, on_bad_image: see `PredictMapper`.
        crf, tile_px, max_image_pixels: see `load_model`.
        precision: the one that every node computes in.
    """
    model = load_model(
        checkpoint,
        device=assigned_device(),
        crf=crf,
        tile_px=tile_px,
        max_image_pixels=max_image_pixels,
        precision=precision,
    )
    return PredictMapper(model, files_in, on_bad_image)
