import numpy as np
import pytest
import torch

from slams_ray.refinement.pixel_adaptive import neighbour_weights, refine_by_colour

DILATIONS = (1, 2, 4, 8, 12, 24)
AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
OFFSETS = [(d * y, d * x) for d in DILATIONS for y, x in AROUND]


def random_image(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 255


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def naive_round(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """One round by a loop over cells, of (3, h, w) and (C, h, w) float64."""
    height, width = image.shape[1:]
    distance = np.hypot(*np.array(OFFSETS).T)
    by_distance = softmax(-((distance / (0.3 * distance.std(ddof=1))) ** 2))
    refined = np.empty_like(maps)
    for y in range(height):
        for x in range(width):
            rows = [min(max(y + dy, 0), height - 1) for dy, _ in OFFSETS]
            columns = [min(max(x + dx, 0), width - 1) for _, dx in OFFSETS]
            around = image[:, rows, columns]
            spread = around.std(axis=1, ddof=1, keepdims=True) + 1e-8
            difference = np.abs(around - image[:, y, x, None]) / (0.3 * spread)
            weights = (softmax(-(difference**2).mean(axis=0)) + 0.01 * by_distance) / 1.01
            refined[:, y, x] = maps[:, rows, columns] @ weights
    return refined


def test_rounds_are_those_of_a_loop_over_cells() -> None:
    image, maps = random_image(1, 3, 9, 11), random_image(1, 2, 9, 11) / 255
    expected = maps[0].double().numpy()
    for _ in range(3):
        expected = naive_round(image[0].double().numpy(), expected)
    found = refine_by_colour(image, maps, num_rounds=3)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-5)


def test_weights_sum_to_one_and_a_constant_map_stays() -> None:
    image = random_image(2, 3, 10, 12)
    torch.testing.assert_close(neighbour_weights(image).sum(dim=1), torch.ones(2, 10, 12))
    constant = torch.full((2, 1, 10, 12), 0.6)
    torch.testing.assert_close(refine_by_colour(image, constant, 20), constant)


def test_in_a_constant_image_only_distance_tells_neighbours_apart() -> None:
    weights = neighbour_weights(torch.full((1, 3, 4, 4), 0.3))[0, :, 1, 2].numpy()
    distance = np.hypot(*np.array(OFFSETS).T)
    by_distance = softmax(-((distance / (0.3 * distance.std(ddof=1))) ** 2))
    np.testing.assert_allclose(weights, (1 / 48 + 0.01 * by_distance) / 1.01, atol=1e-6)


def test_a_map_keeps_to_an_edge_of_colour() -> None:
    image = torch.zeros(1, 3, 32, 40)
    image[..., 20:] = 200
    image += random_image(1, 3, 32, 40) / 50
    maps = torch.zeros(1, 1, 32, 40)
    maps[..., 18:] = 1
    refined = refine_by_colour(image, maps, 10)[0, 0]
    assert refined[:, 18:20].max() < 0.35
    assert refined[:, 20:22].min() > 0.8


@pytest.mark.parametrize("axis", [-1, -2])
def test_mirroring_image_and_maps_mirrors_the_result(axis: int) -> None:
    image, maps = random_image(1, 3, 40, 52), random_image(1, 2, 10, 13) / 255
    found = refine_by_colour(image.flip(axis), maps.flip(axis))
    torch.testing.assert_close(found, refine_by_colour(image, maps).flip(axis))


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    image, maps = random_image(2, 3, 8, 9), random_image(2, 2, 8, 9) / 255
    found = refine_by_colour(image, maps)
    for i in range(2):
        torch.testing.assert_close(
            found[i : i + 1], refine_by_colour(image[i : i + 1], maps[i : i + 1])
        )


def test_gradients_reach_the_maps() -> None:
    maps = random_image(1, 1, 6, 6).requires_grad_()
    refine_by_colour(random_image(1, 3, 6, 6), maps, 2).sum().backward()
    assert maps.grad is not None
    # Every weight is counted once for each cell that reads it.
    assert float(maps.grad.sum()) == pytest.approx(36, rel=1e-4)


def test_an_image_without_a_class_and_a_single_cell_pass() -> None:
    assert refine_by_colour(random_image(1, 3, 8, 8), torch.zeros(1, 0, 2, 2)).shape == (1, 0, 2, 2)
    single = torch.full((1, 1, 1, 1), 0.4)
    torch.testing.assert_close(refine_by_colour(random_image(1, 3, 3, 3), single), single)
