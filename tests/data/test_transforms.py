import numpy as np
import pytest
import torch

from slams_ray.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    normalise,
    pyramid,
    random_crop,
    random_degradation,
    valid_mask,
)


def picture_with_mask(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask in four vertical bands, and an image whose grey value is 50 times the class."""
    mask = np.broadcast_to(np.arange(width) * 4 // width, (height, width)).astype(np.uint8)
    return np.repeat(50 * mask[..., None], 3, axis=2) + np.uint8(10), mask


@pytest.mark.parametrize("size", [(40, 60), (90, 30), (200, 200)])
@pytest.mark.parametrize("seed", range(6))
def test_image_and_mask_are_cropped_alike_and_padding_lies_outside_the_box(
    size: tuple[int, int], seed: int
) -> None:
    image, mask = picture_with_mask(*size)
    crop, labels, box = random_crop(
        image, mask, np.random.default_rng(seed), crop_px=64, long_side_px=(48, 120)
    )
    assert (crop.shape, crop.dtype) == ((64, 64, 3), np.uint8)
    assert labels is not None
    assert (labels.shape, labels.dtype) == ((64, 64), np.uint8)
    top, left, height, width = box
    inside = np.zeros((64, 64), bool)
    inside[top : top + height, left : left + width] = True
    assert (labels[~inside] == 255).all()
    assert (crop[~inside] == 0).all()
    assert (labels[inside] < 4).all()
    difference = np.abs(crop[inside][:, 0].astype(int) - (50 * labels[inside].astype(int) + 10))
    assert np.median(difference) == 0
    assert (difference > 0).mean() < 0.3


def test_the_same_generator_gives_the_same_crop() -> None:
    image, mask = picture_with_mask(50, 70)
    runs = [
        random_crop(image, mask, np.random.default_rng(3), crop_px=32, long_side_px=(32, 64))
        for _ in range(2)
    ]
    for one, two in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, two)


def test_without_a_mask_the_crop_is_the_same_and_has_none() -> None:
    image, mask = picture_with_mask(50, 70)
    one = random_crop(image, mask, np.random.default_rng(3), crop_px=32, long_side_px=(32, 64))
    two = random_crop(image, None, np.random.default_rng(3), crop_px=32, long_side_px=(32, 64))
    np.testing.assert_array_equal(one[0], two[0])
    assert two[1] is None


def test_half_of_the_crops_are_mirrored() -> None:
    image, _ = picture_with_mask(64, 64)
    crops = [
        random_crop(image, None, np.random.default_rng(s), crop_px=64, long_side_px=(64, 64))[0]
        for s in range(200)
    ]
    mirrored = [crop[0, 0, 0] > crop[0, -1, 0] for crop in crops]
    assert 0.4 < np.mean(mirrored) < 0.6


def test_normalise_subtracts_mean_and_divides_by_deviation() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    expected = np.empty((2, 3, 5, 4))
    for channel in range(3):
        expected[:, channel] = (images[..., channel] / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[
            channel
        ]
    result = normalise(torch.from_numpy(images))
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


def test_padding_is_zero_after_normalisation() -> None:
    images = torch.full((1, 8, 8, 3), 200, dtype=torch.uint8)
    result = normalise(images, torch.tensor([[2, 1, 4, 5]]))
    assert (result[0, :, 2:6, 1:6] != 0).all()
    assert result.count_nonzero() == 3 * 4 * 5


def test_the_valid_mask_equals_one_filled_by_loops() -> None:
    boxes = torch.tensor([[0, 0, 6, 6], [1, 2, 3, 4], [5, 0, 1, 2]])
    expected = np.zeros((3, 1, 6, 6), np.float32)
    for number, (top, left, height, width) in enumerate(boxes.tolist()):
        for row in range(top, top + height):
            for column in range(left, left + width):
                expected[number, 0, row, column] = 1
    np.testing.assert_array_equal(valid_mask(boxes, 6).numpy(), expected)


def test_an_image_left_alone_is_degraded_by_ones() -> None:
    field = random_degradation(np.random.default_rng(0), masked_fraction=0, dimmed_fraction=0)
    assert field.dtype == np.float32
    np.testing.assert_array_equal(field, np.ones((6, 6)))


@pytest.mark.parametrize(("masked", "dimmed"), [(1, 0), (0, 1), (1, 1)])
def test_a_degradation_stays_between_zero_and_one(masked: float, dimmed: float) -> None:
    for seed in range(20):
        field = random_degradation(
            np.random.default_rng(seed), masked_fraction=masked, dimmed_fraction=dimmed
        )
        assert 0 <= field.min() <= field.max() <= 1
        assert (field.max() - field.min() < 1e-6) == (masked == 0)


def test_the_pyramid_holds_each_scale_and_its_mirror_image() -> None:
    image = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    levels = list(pyramid(image, (0.5, 1.0, 1.5), flip=True))
    assert [tuple(level.shape) for level in levels] == [
        (2, 3, 10, 15),
        (2, 3, 20, 30),
        (2, 3, 30, 45),
    ]
    torch.testing.assert_close(levels[1][0], image[0], rtol=0, atol=0)
    for level in levels:
        torch.testing.assert_close(level[1], level[0].flip(-1), rtol=0, atol=0)
    assert [len(level) for level in pyramid(image, (1.0,), flip=False)] == [1]
