from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from slams_ray.data.stored_maps import stored_size, upsample_stored
from slams_ray.inference.activation import (
    fuse_pair,
    max_normalise,
    quantise,
    resize_maps,
    to_host,
)
from slams_ray.seeds.seed import seed_labels
from slams_ray.systems.slams.soft_masks import binarise_softly, soft_masks


def random_maps(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 1, shape)).float()


@pytest.mark.parametrize(
    ("image", "stored"), [((8, 12), (2, 3)), ((9, 13), (3, 4)), ((1, 1), (1, 1)), ((7, 4), (2, 1))]
)
def test_the_stored_grid_is_the_image_at_stride_4_rounded_up(
    image: tuple[int, int], stored: tuple[int, int]
) -> None:
    assert stored_size(*image) == stored


@pytest.mark.parametrize("size", [(11, 17), (3, 4), (5, 7)])
def test_mirroring_the_image_mirrors_the_fused_map_bit_for_bit(size: tuple[int, int]) -> None:
    logits, of_mirrored = random_maps(0, 3, 5, 7), random_maps(1, 3, 5, 7)
    straight = fuse_pair(logits, of_mirrored, size)
    mirrored = fuse_pair(of_mirrored, logits, size)
    assert torch.equal(mirrored, straight.flip(-1))


def test_fuse_pair_sums_the_positive_logits_of_both_views() -> None:
    logits, of_mirrored = random_maps(2, 2, 4, 6), random_maps(3, 2, 4, 6)
    expected = logits.clamp(min=0) + of_mirrored.clamp(min=0).flip(-1)
    assert torch.equal(fuse_pair(logits, of_mirrored, (4, 6)), expected)
    assert torch.equal(fuse_pair(logits, None, (4, 6)), logits.clamp(min=0))


def test_logits_above_the_highest_that_counts_count_as_it() -> None:
    logits = torch.tensor([[[-1.0, 2.0, 9.0]]])
    fused = fuse_pair(logits, logits.flip(-1), (1, 3), max_logit=4.0)
    assert fused.tolist() == [[[0.0, 4.0, 8.0]]]


def test_without_classes_every_step_keeps_an_empty_stack() -> None:
    empty = torch.zeros((0, 5, 7))
    fused = fuse_pair(empty, empty, (3, 4))
    assert fused.shape == (0, 3, 4)
    stored = quantise(max_normalise(fused)).numpy()
    assert stored.shape == (0, 3, 4)
    maps = upsample_stored(stored, (12, 16))
    assert maps.shape == (0, 12, 16)
    seed = seed_labels(maps, np.array([], np.int64), 0.2)
    assert seed.shape == (12, 16)
    assert not seed.any()


def test_max_normalise_brings_every_map_to_almost_1_and_keeps_its_order() -> None:
    maps = random_maps(4, 3, 5, 5).relu() * torch.tensor([0.5, 3.0, 100.0])[:, None, None]
    normalised = max_normalise(maps)
    peaks = normalised.amax(dim=(1, 2))
    assert (peaks <= 1).all()
    assert peaks.tolist() == pytest.approx([1, 1, 1], abs=1e-4)
    torch.testing.assert_close(
        normalised * maps.amax(dim=(1, 2))[:, None, None], maps, rtol=1e-4, atol=0
    )


def test_max_normalise_leaves_a_zero_map_at_0() -> None:
    assert max_normalise(torch.zeros((1, 3, 3))).abs().max() == 0


def test_quantising_and_reading_back_errs_by_at_most_half_a_level() -> None:
    maps = torch.from_numpy(np.random.default_rng(5).random((2, 6, 7))).float()
    stored = quantise(maps).numpy()
    assert stored.dtype == np.uint8
    back = upsample_stored(stored, (6, 7))
    assert back.dtype == np.float32
    assert np.abs(back - maps.numpy()).max() <= 0.5 / 255 + 1e-6


def test_quantise_reaches_both_ends_and_clamps() -> None:
    assert quantise(torch.tensor([[[-0.1, 0.0, 1.0, 1.2]]])).tolist() == [[[0, 0, 255, 255]]]


def test_upsampling_stays_within_0_and_1_and_keeps_a_constant_map() -> None:
    rng = np.random.default_rng(6)
    stored = rng.integers(0, 256, (2, 4, 5)).astype(np.uint8)
    maps = upsample_stored(stored, (15, 19))
    assert maps.shape == (2, 15, 19)
    assert maps.min() >= 0
    assert maps.max() <= 1
    constant = upsample_stored(np.full((1, 4, 5), 51, np.uint8), (15, 19))
    assert (constant == np.float32(51) / 255).all()


@pytest.mark.parametrize("size", [(15, 19), (4, 5), (16, 18), (3, 2), (1, 1)])
def test_upsampling_is_torchs_bilinear_without_aligned_corners(size: tuple[int, int]) -> None:
    stored = np.random.default_rng(7).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    expected = resize_maps(torch.from_numpy(stored).float() / 255, size).numpy()
    np.testing.assert_allclose(upsample_stored(stored, size), expected, atol=2e-6)


def test_upsampling_does_not_change_the_stored_maps() -> None:
    stored = np.full((1, 2, 2), 7, np.uint8)
    upsample_stored(stored, (2, 2))[:] = 0
    assert (stored == 7).all()


def test_resizing_puts_rows_before_columns() -> None:
    maps = torch.zeros((1, 2, 2))
    maps[0, 0] = 1
    resized = resize_maps(maps, (4, 6))
    assert resized.shape == (1, 4, 6)
    assert (resized[0, 0] == 1).all()
    assert (resized[0, 3] == 0).all()


def test_seed_labels_equal_the_argmax_over_threshold_and_maps() -> None:
    rng = np.random.default_rng(7)
    maps = rng.random((3, 6, 7)).astype(np.float32)
    classes = np.array([2, 5, 9])
    stacked = np.concatenate([np.full((1, 6, 7), 0.6, np.float32), maps])
    expected = np.array([0, 2, 5, 9])[stacked.argmax(axis=0)]
    found = seed_labels(maps, classes, 0.6)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_a_score_equal_to_the_threshold_is_background() -> None:
    maps = np.array([[[0.3, 0.30001, 0.29999]]], np.float32)
    assert seed_labels(maps, np.array([4]), 0.3).tolist() == [[0, 4, 0]]


@pytest.mark.parametrize("threshold", [0.0, 0.4, 1.0])
def test_seed_labels_never_name_an_absent_class(threshold: float) -> None:
    maps = np.random.default_rng(8).random((2, 9, 9)).astype(np.float32)
    assert set(np.unique(seed_labels(maps, np.array([3, 7]), threshold))) <= {0, 3, 7}


def test_normalised_masks_peak_at_one_inside_the_image_and_ignore_padding() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, 6) * 3 - 2
    valid = torch.ones(2, 1, 5, 6)
    valid[1, :, :, 3:] = 0
    logits[1, :, :, 3:] = 50
    masks = soft_masks(logits, valid, "normalised")
    assert ((masks >= 0) & (masks <= 1)).all()
    torch.testing.assert_close((masks * valid).amax(dim=(2, 3)), torch.ones(2, 3))
    expected = F.softplus(logits[1, 2, :, :3])
    torch.testing.assert_close(masks[1, 2, :, :3], expected / expected.max())


def test_normalised_masks_do_not_fade_when_all_logits_fall() -> None:
    logits = torch.linspace(1, 4, 16).view(1, 1, 4, 4)
    valid = torch.ones(1, 1, 4, 4)
    assert soft_masks(logits - 20, valid, "sigmoid").max() < 1e-6
    assert soft_masks(logits - 6, valid, "normalised").max() == 1


def test_masks_of_the_literature_are_sigmoids() -> None:
    logits = torch.tensor([[[[-1.0, 0.0, 2.0]]]])
    masks = soft_masks(logits, torch.ones(1, 1, 1, 3), "sigmoid")
    torch.testing.assert_close(masks, 1 / (1 + torch.exp(-logits)))


def test_a_cut_mask_is_its_thresholded_region_with_a_soft_edge() -> None:
    masks = torch.rand(3, 1, 6, 7, generator=torch.Generator().manual_seed(0))
    thresholds = torch.tensor([0.25, 0.5, 0.75])
    cut = binarise_softly(masks, thresholds, 0.1)
    for mask, threshold, found in zip(masks, thresholds.tolist(), cut, strict=True):
        assert torch.equal(found > 0.5, mask > threshold)
        sharp = binarise_softly(mask[None], torch.tensor([threshold]), 1e-6)
        torch.testing.assert_close(sharp[0].round(), (mask > threshold).float())
    at_threshold = torch.full((1, 1, 1, 1), 0.5)
    assert binarise_softly(at_threshold, torch.tensor([0.5]), 0.1).item() == 0.5
    torch.testing.assert_close(
        binarise_softly(at_threshold + 0.1, torch.tensor([0.5]), 0.1),
        torch.tensor(1.0).sigmoid().view(1, 1, 1, 1),
    )


def test_tensors_of_any_shapes_come_to_the_host_in_one_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensors = [
        torch.arange(6).view(2, 3),
        torch.zeros((0, 4), dtype=torch.int64),
        torch.arange(24).view(2, 3, 4).permute(2, 0, 1),
    ]
    copy = Mock(wraps=torch.Tensor.cpu)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: copy(tensor))
    found = to_host(tensors)
    copy.assert_called_once()
    for array, tensor in zip(found, tensors, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())
    assert to_host([]) == []
