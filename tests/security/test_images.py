"""Decoding is bounded: what announces too much is refused before its pixels take memory."""

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slams_ray.config import DataConfig
from slams_ray.data.coco import load_coco
from slams_ray.data.image import ImageLimits, decode_mask
from slams_ray.data.shard_work import PrepareMapper
from slams_ray.data.source import limits, load_split
from slams_ray.data.voc import IndexMask
from slams_ray.errors import ConfigError, DataError

SIDE = 50_000


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb() -> bytes:
    """50,000 x 50,000 pixels of 1 bit: 300 MB of zeros in as many KB."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 1, 0, 0, 0, 0)
    squeeze = zlib.compressobj(9)
    row = bytes(1 + SIDE // 8)
    pixels = b"".join(squeeze.compress(row) for _ in range(SIDE)) + squeeze.flush()
    parts = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def bmp_bomb() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 100, 0, 0, 54) + header + bytes(100)


def webp_bomb() -> bytes:
    """The largest canvas WebP can announce, 16,384 x 16,384."""
    largest = (16_384 - 1).to_bytes(3, "little")
    header = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + largest + largest
    animation = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body = b"WEBP" + header + animation
    return b"RIFF" + struct.pack("<I", len(body)) + body


BOMBS: dict[str, Callable[[], bytes]] = {"png": png_bomb, "bmp": bmp_bomb, "webp": webp_bomb}

DECODE = """
import resource, sys
from slams_ray.data.image import decode_image, read_file
from slams_ray.errors import DataError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_image(read_file(sys.argv[1]), sys.argv[1])
except DataError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_name_before_its_pixels_take_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(BOMBS[kind]())
    assert path.stat().st_size < 400_000
    run = subprocess.run(
        [sys.executable, "-c", DECODE, str(path)], capture_output=True, text=True, check=True
    )
    message, kilobytes = run.stdout.strip().splitlines()
    assert str(path) in message
    assert "the limit is 64000000 pixels" in message
    assert int(kilobytes) < 50_000, "its pixels would take 300 MB and more"


def test_the_bounds_are_settings_and_named_where_they_are_exceeded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(path)
    mask = IndexMask(path=str(path), lookup=(0,) * 256, num_indices=2)
    assert mask(30, 40).shape == (30, 40)
    with pytest.raises(DataError, match=r"a\.png is 40 x 30, .*1199 pixels.*max_image_pixels"):
        decode_mask(path.read_bytes(), str(path), ImageLimits(max_pixels=1199))
    limits = ImageLimits(max_bytes=10)
    small = IndexMask(path=str(path), lookup=(0,) * 256, num_indices=2, limits=limits)
    with pytest.raises(DataError, match=r"a\.png has \d+ bytes, .*limit is 10 .*max_image_bytes"):
        small.classes()


@pytest.mark.parametrize("bounds", [{"max_image_pixels": 1000}, {"max_image_bytes": 1000}])
def test_prepare_lists_an_image_beyond_the_settings_as_bad(
    tmp_path: Path, bounds: dict[str, int]
) -> None:
    (tmp_path / "images").mkdir()
    for name, side in (("small.png", 10), ("large.png", 40)):
        pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    (tmp_path / "labels.csv").write_text("image,labels\nsmall.png,cat\nlarge.png,cat\n")
    config = DataConfig(format="folder", root=str(tmp_path), val_split=None, **bounds)
    split = load_split(config, str(tmp_path), "train")
    mapper = PrepareMapper(split.description, "skip", limits=limits(config))
    table, summary = mapper({}, split.items)
    assert table["image_id"].to_pylist() == ["small"]
    ((image_id, reason),) = summary["bad"]
    assert image_id == "large"
    assert next(iter(bounds)) in reason


def test_a_bound_higher_than_later_stages_decode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.max_image_pixels is 64000001"):
        DataConfig(format="synthetic", max_image_pixels=64_000_001)


def test_a_compressed_mask_larger_than_its_image_is_not_decoded(tmp_path: Path) -> None:
    """The annotation file tells its size, whatever the image is."""
    (tmp_path / "annotations").mkdir()
    segmentation = {"size": [SIDE, SIDE], "counts": "PPPPP1"}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 20, "width": 30}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [annotation],
    }
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content))
    (item,) = load_coco(str(tmp_path), "train").items
    assert item.read_mask is not None
    with pytest.raises(DataError, match=r"a\.jpg: .*\[50000, 50000\], .* image \[20, 30\]"):
        item.read_mask(20, 30)
