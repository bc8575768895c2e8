from collections.abc import Callable

import numpy as np
import pytest
import torch

from slams_ray.systems.slams import losses


def random_maps(seed: int, num_images: int = 3, num_classes: int = 4) -> tuple[torch.Tensor, ...]:
    """activation (B, C, 4, 5), labels (B, C) with 1, 2, 3 classes, valid (B, 1, 4, 5)."""
    rng = np.random.default_rng(seed)
    activation = torch.from_numpy(rng.uniform(0.05, 0.95, (num_images, num_classes, 4, 5)))
    labels = torch.zeros((num_images, num_classes), dtype=torch.float64)
    for image in range(num_images):
        chosen = rng.choice(num_classes, min(image + 1, num_classes), replace=False)
        labels[image, chosen] = 1
    valid = torch.ones((num_images, 1, 4, 5), dtype=torch.float64)
    valid[:, :, :, 4] = 0
    valid[0, :, 0] = 0
    return activation, labels, valid


def mean_over_valid(image: np.ndarray, valid: np.ndarray) -> float:
    pixels = [image[i, j] for i, j in zip(*np.nonzero(valid), strict=True)]
    return float(np.mean(pixels))


def test_activation_regularization_equals_a_loop_over_present_maps() -> None:
    activation, labels, valid = random_maps(0)
    expected = [
        np.mean(
            [
                mean_over_valid(activation[b, c].numpy(), valid[b, 0].numpy())
                for c in range(4)
                if labels[b, c]
            ]
        )
        for b in range(3)
    ]
    found = losses.activation_regularization(activation, labels, valid)
    assert found.tolist() == pytest.approx(expected)


def test_equivariance_loss_equals_a_loop_over_present_maps() -> None:
    activation, labels, valid = random_maps(1)
    other = random_maps(2)[0]
    expected = []
    for b in range(3):
        per_class = []
        for c in range(4):
            if labels[b, c]:
                difference = np.abs(activation[b, c].numpy() - other[b, c].numpy())
                per_class.append(mean_over_valid(difference, valid[b, 0].numpy()))
        expected.append(np.mean(per_class))
    found = losses.equivariance_loss(activation, other, labels, valid)
    assert found.tolist() == pytest.approx(expected)


def naive_complementation(activation: np.ndarray, present: list[int], valid: np.ndarray) -> float:
    per_class = []
    for k in present:
        square = np.zeros(valid.shape)
        for i in range(valid.shape[0]):
            for j in range(valid.shape[1]):
                background = 1 - max(activation[c, i, j] for c in present)
                rival = max([background] + [activation[c, i, j] for c in present if c != k])
                square[i, j] = (activation[k, i, j] + rival - 1) ** 2
        per_class.append(mean_over_valid(square, valid))
    return float(np.mean(per_class))


@pytest.mark.parametrize("seed", range(3))
def test_complementation_loss_equals_a_loop_for_one_two_and_three_present_classes(
    seed: int,
) -> None:
    activation, labels, valid = random_maps(seed)
    expected = [
        naive_complementation(
            activation[b].numpy(), labels[b].nonzero().flatten().tolist(), valid[b, 0].numpy()
        )
        for b in range(3)
    ]
    found = losses.complementation_loss(activation, labels, valid)
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_complementation_loss_is_0_for_one_hot_maps_and_positive_for_overlapping_ones() -> None:
    one_hot = torch.zeros((1, 2, 2, 2))
    one_hot[0, 0, 0, 0] = one_hot[0, 1, 1, 1] = 1
    labels, valid = torch.ones((1, 2)), torch.ones((1, 1, 2, 2))
    assert losses.complementation_loss(one_hot, labels, valid).item() == 0
    assert losses.complementation_loss(torch.ones_like(one_hot), labels, valid).item() == 1


def test_equivariance_loss_is_0_for_identical_maps_and_1_for_opposite_ones() -> None:
    activation, labels, valid = random_maps(3)
    assert losses.equivariance_loss(activation, activation, labels, valid).tolist() == [0, 0, 0]
    binary = (activation > 0.5).double()
    opposite = losses.equivariance_loss(binary, 1 - binary, labels, valid)
    assert opposite.tolist() == pytest.approx([1, 1, 1])


MAP_LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "regularization": losses.activation_regularization,
    "equivariance": lambda a, y, v: losses.equivariance_loss(a, a.flip(-2) * 0.5, y, v),
    "complementation": losses.complementation_loss,
}


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_map_losses_have_the_gradient_of_finite_differences(name: str) -> None:
    activation, labels, valid = random_maps(4)
    activation.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: MAP_LOSSES[name](a, labels, valid), activation)


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_map_losses_lie_between_0_and_1(name: str) -> None:
    for seed in range(5):
        activation, labels, valid = random_maps(seed)
        loss = MAP_LOSSES[name](activation, labels, valid)
        assert loss.min() >= 0
        assert loss.max() <= 1


@pytest.mark.parametrize("name", ["regularization", "complementation"])
def test_what_lies_on_padding_or_in_absent_classes_does_not_count(name: str) -> None:
    activation, labels, valid = random_maps(5)
    counts = (valid * labels[:, :, None, None]).bool()
    changed = torch.where(counts, activation, 1 - activation)
    before = MAP_LOSSES[name](activation, labels, valid)
    assert MAP_LOSSES[name](changed, labels, valid).tolist() == pytest.approx(before.tolist())


def test_padding_and_absent_classes_do_not_count_for_equivariance() -> None:
    activation, labels, valid = random_maps(6)
    counts = (valid * labels[:, :, None, None]).bool()
    changed = torch.where(counts, activation, 1 - activation)
    assert losses.equivariance_loss(activation, changed, labels, valid).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_an_image_without_labels_contributes_0_with_gradient_0(name: str) -> None:
    activation, labels, valid = random_maps(7)
    activation.requires_grad_()
    loss = MAP_LOSSES[name](activation, torch.zeros_like(labels), valid)
    loss.sum().backward()
    assert loss.tolist() == [0, 0, 0]
    assert activation.grad is not None
    assert activation.grad.abs().max() == 0


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_an_image_that_is_all_padding_contributes_0(name: str) -> None:
    activation, labels, valid = random_maps(8)
    assert MAP_LOSSES[name](activation, labels, torch.zeros_like(valid)).tolist() == [0, 0, 0]
