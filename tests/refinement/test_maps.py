"""Refinements of stored maps, image by image and shard by shard."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slams_ray.data.image import decode_image
from slams_ray.data.stored_maps import stored_size, unpack_maps
from slams_ray.refinement.maps import (
    MapRefinement,
    PixelAdaptiveRefinement,
    WalkRefinement,
    to_levels,
)
from slams_ray.refinement.maps_work import RefineMapsMapper
from slams_ray.refinement.walk.propagation import Walk, scaled_steps

CPU = torch.device("cpu")
SIZE = 40, 56


class Border(nn.Module):
    """Finds an edge in the column of cells right of the middle, whatever the image shows."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = stored_size(images.shape[-2], images.shape[-1])
        logits = torch.full((len(images), height, width), -20.0)
        logits[:, :, width // 2] = 20.0
        return logits


def image() -> np.ndarray:
    """Left half red, right half blue, with a little grain."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:, : SIZE[1] // 2, 0] = 200
    pixels[:, SIZE[1] // 2 :, 2] = 200
    grain = np.random.default_rng(0).integers(0, 12, pixels.shape)
    return (pixels + grain).astype(np.uint8)


def spot() -> np.ndarray:
    """A map of two cells in the left half, and one of nothing."""
    maps = np.zeros((2, *stored_size(*SIZE)), np.uint8)
    maps[0, 4:6, 3] = 255
    return maps


REFINEMENTS = [WalkRefinement(Border(), 10.0, 4000, CPU), PixelAdaptiveRefinement(10, CPU)]


@pytest.mark.parametrize("refinement", REFINEMENTS)
def test_a_spot_spreads_over_its_own_side_and_not_over_the_border(
    refinement: MapRefinement,
) -> None:
    refined = refinement(image(), spot())
    width = refined.shape[2] // 2
    assert (refined.dtype, refined.shape) == (np.uint8, spot().shape)
    assert refined[0].max() == 255
    assert (refined[0, :, :width] > 0).sum() > 10 * (spot() > 0).sum()
    assert refined[0, :, :width].mean() > 20 * refined[0, :, width + 1 :].mean()
    assert (refined[1] == 0).all()


def test_the_walk_takes_steps_in_proportion_to_the_grid() -> None:
    refinement = WalkRefinement(Border(), 8.0, 300, CPU)
    grid = stored_size(*SIZE)
    edges = refinement.edges(image())
    expected = Walk(edges, 8.0).propagate(spot(), [scaled_steps(300, grid)])[0]
    np.testing.assert_array_equal(refinement(image(), spot()), to_levels(expected))


def test_only_the_maps_of_the_system_are_replaced(shard: Any) -> None:
    tables = {"images": shard.images, "activations": shard.activations}
    refinement = PixelAdaptiveRefinement(3, CPU)
    table, summary = RefineMapsMapper("slams", refinement)(tables, None)
    assert table.schema == shard.activations.schema
    assert summary["num_rows"] == 4
    for column in ("image_id", "height", "width", "image_labels", "cam"):
        assert table.column(column).equals(shard.activations.column(column))
    rows = zip(
        shard.images.to_pylist(), shard.activations.to_pylist(), table.to_pylist(), strict=True
    )
    for image_row, before, after in rows:
        if not before["image_labels"]:
            assert after["slams"] == b""
            continue
        size = before["height"], before["width"]
        maps = unpack_maps(before["slams"], before["image_labels"], *size)
        expected = refinement(decode_image(image_row["image"], "a"), maps)
        assert after["slams"] == expected.tobytes()
