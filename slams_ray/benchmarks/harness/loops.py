"""Alternatives to our inference: a bare PyTorch loop, and the field's script.

They do not use our inference code, so that they are independent references.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])
COLUMNS = ["image_id", "image", "height", "width", "image_labels"]


@torch.inference_mode()
def bare_shard(
    path: str,
    output_dir: str,
    networks: Mapping[str, nn.Module],
    scales: Sequence[float],
) -> None:
    """Writes the activation shard of an image shard, with the same content as our mapper's."""
    table = pq.read_table(path, columns=COLUMNS).to_pydict()
    maps: dict[str, list[bytes]] = {name: [] for name in networks}
    for data, labels in zip(table["image"], table["image_labels"], strict=True):
        pixels = _pixels(_decode(data))
        height, width = pixels.shape[-2:]
        size = (-(-height // 4), -(-width // 4))
        channels = torch.tensor(labels) - 1
        total = {name: torch.zeros(len(labels), *size) for name in networks}
        for scale in scales:
            scaled = _rescaled(pixels, scale)
            both = torch.cat([scaled, scaled.flip(-1)])
            for name, network in networks.items():
                logits = network(both)[:, channels].relu()
                resized = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
                total[name] += resized[0] + resized[1].flip(-1)
        for name, summed in total.items():
            normalised = summed / (summed.amax((1, 2), keepdim=True) + 1e-5)
            maps[name].append((normalised * 255).round().to(torch.uint8).numpy().tobytes())
    del table["image"]
    pq.write_table(
        pa.table(table | maps),
        Path(output_dir) / Path(path).name,
        compression="zstd",
        use_dictionary=False,
    )


@torch.inference_mode()
def bare_masks(path: str, output_dir: str, network: nn.Module) -> None:
    """Writes a mask for each image of a shard: argmax at one scale and mirrored, as PNG."""
    table = pq.read_table(path, columns=["image_id", "image"]).to_pydict()
    masks, confidences = [], []
    for data in table["image"]:
        pixels = _pixels(_decode(data))
        logits = network(torch.cat([pixels, pixels.flip(-1)])).float()
        size = pixels.shape[-2:]
        full = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        scores = full.softmax(1)
        best, labels = (scores[0] + scores[1].flip(-1)).max(0)
        confidences.append(float(best.mean()) / 2)
        buffer = io.BytesIO()
        Image.fromarray(labels.to(torch.uint8).numpy()).save(buffer, format="PNG")
        masks.append(buffer.getvalue())
    columns = {"image_id": table["image_id"], "confidence": confidences, "labels": masks}
    pq.write_table(pa.table(columns), Path(output_dir) / Path(path).name, compression="zstd")


@torch.inference_mode()
def field_image(
    data: bytes,
    labels: Sequence[int],
    stem: Path,
    network: nn.Module,
    scales: Sequence[float],
) -> None:
    """Writes <stem>.cam.npy and <stem>.high_res.npy as IRN's make_cam does.

    The files hold float32 maps of the present classes, at stride 4 and at full resolution. Like
    make_cam, the loop resizes the maps of all classes.
    """
    pixels = _pixels(_decode(data))
    height, width = pixels.shape[-2:]
    outputs = []
    for scale in scales:
        scaled = _rescaled(pixels, scale)
        logits = network(torch.cat([scaled, scaled.flip(-1)])).relu()
        outputs.append(logits[0] + logits[1].flip(-1))
    channels = torch.tensor(labels) - 1
    sizes = {"cam": (-(-height // 4), -(-width // 4)), "high_res": (height, width)}
    for name, size in sizes.items():
        resized = [
            F.interpolate(o[None], size=size, mode="bilinear", align_corners=False)[0]
            for o in outputs
        ]
        summed = torch.stack(resized).sum(0)[channels]
        normalised = summed / (F.adaptive_max_pool2d(summed, 1) + 1e-5)
        np.save(f"{stem}.{name}.npy", normalised.numpy())


def _decode(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def _pixels(image: np.ndarray) -> torch.Tensor:
    return ((torch.from_numpy(image)[None].float() / 255 - MEAN) / STD).permute(0, 3, 1, 2)


def _rescaled(pixels: torch.Tensor, scale: float) -> torch.Tensor:
    size = [max(1, round(side * scale)) for side in pixels.shape[-2:]]
    return F.interpolate(
        pixels, size=size, mode="bilinear", align_corners=False, antialias=scale < 1
    )
