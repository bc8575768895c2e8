"""Semantic segmentation from image-level labels: SLAMs (arXiv 2210.12417) on Ray and MLflow."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from slams_ray.model.model import Model

__all__ = ["load"]


def load(
    model: str | os.PathLike[str],
    *,
    device: str | None = None,
    crf: bool = False,
    tile_px: int | None = None,
    batch_size: int | None = None,
    max_image_pixels: int = 64_000_000,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    precision: Literal["auto", "float32", "bfloat16"] | None = None,
    max_side_px: int | None = None,
) -> "Model":
    """Loads a trained segmentation network.

    The last four settings are by default those with which the network was scored.

    Args:
        model: workspace of a finished pipeline, checkpoint, or MLflow model (`models:/name@best`).
        device: torch device, such as cpu or cuda; None is a GPU if there is one.
        crf: whether DeepLab's CRF of test time refines the labels, which takes seconds an image.
        tile_px: side of the tiles in which larger images are segmented, a multiple of 32; None
            takes images whole.
        batch_size: images of one size that share a forward; None chooses by device.
        max_image_pixels: largest number of pixels of an image, at most 178,956,970.
        scales: image scales whose scores are averaged.
        flip: whether the mirrored image is included as well.
        precision: number format of the network; auto is bfloat16 where the device multiplies it
            natively.
        max_side_px: longest side at which images are segmented; larger ones are shrunk.

    Raises:
        ArtifactError: there is no such model.
        ConfigError: a setting cannot be used.
    """
    from slams_ray.model.model import load_model

    return load_model(
        model,
        device=device,
        crf=crf,
        tile_px=tile_px,
        batch_size=batch_size,
        max_image_pixels=max_image_pixels,
        scales=scales,
        flip=flip,
        precision=precision,
        max_side_px=max_side_px,
    )
