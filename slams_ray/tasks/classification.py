"""Judging image-level scores: multi-label mean average precision (scikit-learn)."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from PIL import Image

from slams_ray.data.image import decode_image
from slams_ray.data.transforms import normalise
from slams_ray.tasks.training_module import Row, multi_hot


@torch.inference_mode()
def score_images(
    score: Callable[[torch.Tensor], torch.Tensor],
    rows: Iterable[Row],
    num_classes: int,
    long_side_px: int,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Scores whole images, each resized to one length of its longer side.

    Args:
        score: (1, 3, H, W) normalised image to (1, C) scores.

    Returns:
        scores (N, C) float32 and labels (N, C) uint8.
    """
    scores, labels = (
        [np.zeros((0, num_classes), np.float32)],
        [np.zeros((0, num_classes), np.uint8)],
    )
    for row in rows:
        image = Image.fromarray(decode_image(row["image"], row["image_id"]))
        factor = long_side_px / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        pixels = torch.from_numpy(np.array(image.resize(size, Image.Resampling.BILINEAR)))
        scores.append(score(normalise(pixels[None].to(device))).float().cpu().numpy())
        labels.append(multi_hot(row["image_labels"], num_classes)[None])
    return {"scores": np.concatenate(scores), "labels": np.concatenate(labels)}


def mean_average_precision(results: Sequence[dict[str, np.ndarray]]) -> float:
    """mAP over the classes that occur, of the results of all workers; nan when none occurs."""
    from sklearn.metrics import average_precision_score

    scores = np.concatenate([r["scores"] for r in results])
    labels = np.concatenate([r["labels"] for r in results])
    occurring = labels.any(axis=0)
    if not occurring.any():
        return float("nan")
    return float(
        average_precision_score(labels[:, occurring], scores[:, occurring], average="macro")
    )
