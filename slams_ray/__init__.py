"""Semantic segmentation from image-level labels: SLAMs (arXiv 2210.12417) on Ray and MLflow."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slams_ray.model.model import Model

__all__ = ["load"]


def load(model: str | os.PathLike[str], **options: Any) -> "Model":
    """Loads a trained segmentation network; see `slams_ray.model.model.load_model`.

    Args:
        model: workspace of a finished pipeline, checkpoint, or MLflow model (`models:/name@best`).
        options: device, crf, tile_px, max_image_pixels, scales, flip, precision, max_side_px.
    """
    from slams_ray.model.model import load_model

    return load_model(model, **options)
