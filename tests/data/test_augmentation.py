import numpy as np
import pytest

from slams_ray.data.augmentation import jitter_colours, random_crop, random_degradation

HEIGHT, WIDTH = 40, 60


def coordinates() -> tuple[np.ndarray, np.ndarray]:
    """An image that holds (row, column) in red and green, and a mask made from the same two."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([rows + 1, columns + 1, np.full_like(rows, 9)], axis=2).astype(np.uint8)
    return image, mask_at(rows, columns)


def mask_at(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return ((3 * rows + 2 * columns) % 240).astype(np.uint8)


@pytest.mark.parametrize("crop_px", [24, 50, 64])
def test_image_and_mask_stay_aligned_and_the_rest_is_padding(crop_px: int) -> None:
    image, mask = coordinates()
    for seed in range(12):
        crop, labels, box = random_crop(
            image,
            mask,
            np.random.default_rng(seed),
            crop_px=crop_px,
            long_side_px=(WIDTH, WIDTH),
        )
        assert labels is not None
        assert crop.shape == (crop_px, crop_px, 3)
        assert labels.shape == (crop_px, crop_px)
        top, left, height, width = box
        assert (height, width) == (min(HEIGHT, crop_px), min(WIDTH, crop_px))
        inside = np.zeros((crop_px, crop_px), bool)
        inside[top : top + height, left : left + width] = True
        rows, columns = crop[..., 0].astype(int) - 1, crop[..., 1].astype(int) - 1
        np.testing.assert_array_equal(labels[inside], mask_at(rows, columns)[inside])
        assert (crop[~inside] == 0).all()
        assert (labels[~inside] == 255).all()
        assert (np.diff(rows[inside].reshape(height, width), axis=0) == 1).all()
        steps = np.diff(columns[inside].reshape(height, width), axis=1)
        assert (steps == 1).all() or (steps == -1).all()


def test_about_half_of_the_crops_are_mirrored() -> None:
    image, _ = coordinates()
    mirrored = 0
    for seed in range(200):
        crop, labels, _ = random_crop(
            image, None, np.random.default_rng(seed), crop_px=32, long_side_px=(WIDTH, WIDTH)
        )
        assert labels is None
        mirrored += crop[0, 0, 1] > crop[0, 1, 1]
    assert 70 < mirrored < 130


def test_crops_reach_every_offset() -> None:
    image, _ = coordinates()
    found, placed = set(), set()
    for seed in range(400):
        rng = np.random.default_rng(seed)
        crop, _, box = random_crop(image, None, rng, crop_px=50, long_side_px=(WIDTH, WIDTH))
        found.add(int(crop[box[0], :, 1].min()) - 1)
        placed.add(int(box[0]))
    assert found == placed == set(range(11))


def test_the_longer_side_is_resized_into_its_range_and_the_aspect_is_kept() -> None:
    image, mask = coordinates()
    widths = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        _, _, box = random_crop(image, mask, rng, crop_px=64, long_side_px=(30, 45))
        widths.add(int(box[3]))
        assert abs(box[2] - box[3] * HEIGHT / WIDTH) <= 0.5
    assert min(widths) == 30
    assert max(widths) == 45


def test_a_resized_mask_holds_no_class_the_mask_did_not_hold() -> None:
    image, _ = coordinates()
    mask = np.where(np.arange(WIDTH) < 31, 3, 11).astype(np.uint8)[None].repeat(HEIGHT, axis=0)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        _, labels, _ = random_crop(image, mask, rng, crop_px=48, long_side_px=(20, 90))
        assert set(np.unique(labels)) <= {3, 11, 255}


def test_an_image_one_pixel_high_survives() -> None:
    image = np.full((1, 300, 3), 5, np.uint8)
    crop, _, box = random_crop(
        image, None, np.random.default_rng(0), crop_px=32, long_side_px=(20, 20)
    )
    assert box[2:].tolist() == [1, 20]
    assert (crop == 5).any(axis=2).sum() == 20


def test_degradation_is_a_soft_mask_within_0_and_1() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        field = random_degradation(rng, masked_fraction=0.5, dimmed_fraction=0.5)
        assert field.shape == (6, 6)
        assert field.dtype == np.float32
        assert 0 <= field.min() <= field.max() <= 1


def test_degradation_is_the_same_for_the_same_generator() -> None:
    first, again = (
        random_degradation(np.random.default_rng(3), masked_fraction=1, dimmed_fraction=1)
        for _ in range(2)
    )
    assert np.array_equal(first, again)


def test_an_image_left_alone_is_all_ones_and_a_dimmed_one_has_a_single_factor() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert (random_degradation(rng, masked_fraction=0, dimmed_fraction=0) == 1).all()
        dimmed = random_degradation(rng, masked_fraction=0, dimmed_fraction=1)
        assert 0.2 <= dimmed.min() == dimmed.max() <= 1
        assert np.ptp(random_degradation(rng, masked_fraction=1, dimmed_fraction=0)) > 0


def test_fractions_are_the_shares_of_degraded_images() -> None:
    rng = np.random.default_rng(0)
    fields = [random_degradation(rng, masked_fraction=0.3, dimmed_fraction=0) for _ in range(1000)]
    assert np.mean([(field != 1).any() for field in fields]) == pytest.approx(0.3, abs=0.05)


def test_the_same_generator_gives_the_same_crop_with_or_without_a_mask() -> None:
    image, mask = coordinates()
    crops = [
        random_crop(image, labels, np.random.default_rng(3), crop_px=32, long_side_px=(32, 64))
        for labels in (mask, mask, None)
    ]
    np.testing.assert_array_equal(crops[0][0], crops[1][0])
    np.testing.assert_array_equal(crops[0][1], crops[1][1])
    np.testing.assert_array_equal(crops[0][0], crops[2][0])
    assert crops[2][1] is None


def test_each_range_of_the_jitter_bounds_its_own_change() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(60, 120, (12, 10, 3)).astype(np.uint8)
    means = [jitter_colours(image, rng, (0.5, 0, 0, 0)).mean() / image.mean() for _ in range(200)]
    assert 0.49 < min(means) < 0.55
    assert 1.45 < max(means) < 1.51
    spreads = [jitter_colours(image, rng, (0, 0.5, 0, 0)).std() / image.std() for _ in range(200)]
    assert 0.49 < min(spreads) < 0.6
    grey = np.repeat(image[..., :1], 3, axis=2)
    assert np.array_equal(jitter_colours(grey, rng, (0, 0, 0.5, 0.5)), grey)
    red = np.tile(np.array([200, 20, 20], np.uint8), (3, 3, 1))
    turned = np.stack([jitter_colours(red, rng, (0, 0, 0, 0.5))[0, 0] for _ in range(50)])
    assert set(turned.argmax(axis=1)) == {0, 1, 2}


def test_jitter_is_the_same_for_the_same_generator_and_none_leaves_the_image_alone() -> None:
    image, _ = coordinates()
    first, again = (
        jitter_colours(image, np.random.default_rng(3), (0.3, 0.3, 0.3, 0.1)) for _ in range(2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, image)
    assert np.array_equal(jitter_colours(image, np.random.default_rng(3), (0, 0, 0, 0)), image)
