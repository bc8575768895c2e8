import numpy as np
import pytest
import torch

from slams_ray.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    normalise,
    pyramid,
    valid_mask,
)


def test_normalise_subtracts_the_mean_and_divides_by_the_deviation_of_each_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3)).astype(np.uint8)
    found = normalise(torch.from_numpy(images))
    assert found.shape == (2, 3, 3, 4)
    for c in range(3):
        expected = (images[..., c] / 255 - IMAGENET_MEAN[c]) / IMAGENET_STD[c]
        np.testing.assert_allclose(found[:, c].numpy(), expected, rtol=1e-4, atol=1e-6)


def test_padding_is_0_after_normalisation_and_the_image_is_untouched() -> None:
    images = torch.full((1, 6, 6, 3), 200, dtype=torch.uint8)
    found = normalise(images, torch.tensor([[1, 2, 3, 4]]))
    inside = torch.zeros((6, 6), dtype=torch.bool)
    inside[1:4, 2:6] = True
    assert (found[..., ~inside] == 0).all()
    assert torch.equal(found[..., inside], normalise(images)[..., inside])


def test_normalise_takes_pixels_of_any_layout_and_leaves_them_as_they_are() -> None:
    images = torch.randint(0, 256, (2, 5, 7, 3), generator=torch.Generator().manual_seed(0))
    for pixels in (images.to(torch.uint8), images.float()):
        expected = normalise(pixels)
        turned, cropped = pixels.transpose(1, 2), pixels[:, :, 1:6]
        assert torch.equal(normalise(turned), expected.transpose(2, 3))
        assert torch.equal(normalise(cropped), expected[..., 1:6])
        assert torch.equal(pixels.long(), images)


def test_the_valid_mask_is_1_inside_each_box() -> None:
    boxes = [[0, 0, 5, 5], [1, 2, 3, 1], [4, 0, 1, 5]]
    mask = valid_mask(torch.tensor(boxes), 5)
    assert mask.shape == (3, 1, 5, 5)
    for image, (top, left, height, width) in zip(mask, boxes, strict=True):
        for i in range(5):
            for j in range(5):
                inside = top <= i < top + height and left <= j < left + width
                assert image[0, i, j] == float(inside)


@pytest.mark.parametrize("flip", [True, False])
def test_the_pyramid_has_one_level_per_scale_with_the_mirrored_image_second(flip: bool) -> None:
    image = torch.randn((1, 3, 10, 15), generator=torch.Generator().manual_seed(0))
    levels = list(pyramid(image, (0.5, 1.0, 2.0), flip))
    count = 2 if flip else 1
    assert [tuple(level.shape) for level in levels] == [
        (count, 3, 5, 8),
        (count, 3, 10, 15),
        (count, 3, 20, 30),
    ]
    assert torch.equal(levels[1][:1], image)
    if flip:
        assert all(torch.equal(level[1], level[0].flip(-1)) for level in levels)


def test_a_tiny_image_keeps_at_least_one_pixel_in_the_pyramid() -> None:
    (level,) = pyramid(torch.zeros((1, 3, 1, 1)), (0.25,), False)
    assert level.shape == (1, 3, 1, 1)


def test_the_layout_of_normalised_images_changes_no_value() -> None:
    images = torch.randint(0, 256, (2, 5, 5, 3), dtype=torch.uint8)
    boxes = torch.tensor([[1, 2, 3, 4], [0, 0, 5, 4]])
    expected = normalise(images, boxes, torch.contiguous_format)
    assert expected.is_contiguous()
    found = normalise(images, boxes)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, expected)
