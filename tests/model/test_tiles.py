"""Tiles give what the whole image gives, in bounded memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import slams_ray
from slams_ray.errors import ConfigError
from slams_ray.inference.segmentation_predictor import SegmentationPredictor
from slams_ray.model.tiles import overlap_of, predict_in_tiles, spans


@pytest.mark.parametrize("tile_px", [128, 160, 512])
@pytest.mark.parametrize("length", [1, 31, 128, 129, 300, 1000])
def test_every_pixel_is_decided_by_one_tile_that_sees_its_surroundings(
    length: int, tile_px: int
) -> None:
    found = spans(length, tile_px)
    decided = [p for span in found for p in range(span.kept_start, span.kept_stop)]
    assert decided == list(range(length))
    margin = overlap_of(tile_px) // 2
    for span in found:
        assert span.start % 32 == 0
        assert span.stop - span.start <= tile_px
        assert span.start == 0 or span.kept_start - span.start >= margin
        assert span.stop == length or span.stop - span.kept_stop >= margin


@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((0.5, 1.0), True)])
def test_tiles_of_a_network_that_sees_little_equal_the_whole(
    scales: tuple[float, ...], flip: bool
) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 1)
    )
    predictor = SegmentationPredictor(network, scales=scales, flip=flip, device=torch.device("cpu"))
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    image = np.array(Image.fromarray(coarse).resize((416, 288), Image.Resampling.BILINEAR))
    seen = []

    def predict(tile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(max(tile.shape[:2]))
        return predictor.predict_with_confidence(tile)

    labels, confidence = predict_in_tiles(predict, image, 128)
    whole, whole_confidence = predictor.predict_with_confidence(image)
    assert len(seen) > 6
    assert max(seen) == 128
    np.testing.assert_allclose(confidence, whole_confidence, atol=1e-5)
    assert (labels != whole).sum() <= 2, "more than ties"


def test_a_model_takes_tiles_and_refuses_useless_ones(
    write_checkpoint: Callable[..., Path], photographs: Path
) -> None:
    path = write_checkpoint()
    small = photographs / "small.jpg"
    whole, tiled = (slams_ray.load(path, tile_px=t).predict(small) for t in (None, 128))
    np.testing.assert_array_equal(whole.labels, tiled.labels)
    for tile_px in (64, 200):
        with pytest.raises(ConfigError, match=f"tile_px is {tile_px}, expected a multiple of 32"):
            slams_ray.load(path, tile_px=tile_px)
