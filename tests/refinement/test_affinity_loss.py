from math import log
from typing import Any

import numpy as np
import pytest
import torch

from slams_ray.refinement.walk import affinity_loss as affinity_loss_module
from slams_ray.refinement.walk.affinity_loss import (
    affinity_loss,
    affinity_sums,
    affinity_terms,
    decided_pairs,
    labels_on_grid,
    pair_counts,
)
from slams_ray.refinement.walk.pair_groups import gathered_pairs
from slams_ray.refinement.walk.paths import half_plane_offsets, path_cells

IGNORED = 255


def random_logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2


def random_labels(*shape: int) -> torch.Tensor:
    draws = np.random.default_rng(3).choice([0, 1, 2, IGNORED], shape, p=[0.4, 0.3, 0.2, 0.1])
    return torch.from_numpy(draws.astype(np.uint8))


def naive_sums(
    logits: torch.Tensor, labels: torch.Tensor, radius: int
) -> tuple[list[torch.Tensor], list[int]]:
    """Of one image, by a loop over pairs, the largest edge of each by torch's own maximum."""
    edges = logits.sigmoid()
    height, width = edges.shape
    sums, counts = [edges.sum() * 0 for _ in range(3)], [0, 0, 0]
    for y in range(height):
        for x in range(width):
            for dy, dx in half_plane_offsets(radius):
                if y + dy >= height or not 0 <= x + dx < width:
                    continue
                first, second = int(labels[y, x]), int(labels[y + dy, x + dx])
                if IGNORED in (first, second):
                    continue
                path = torch.stack([edges[y + cy, x + cx] for cy, cx in path_cells((dy, dx))])
                affinity = 1 - path.max()
                kind = 2 if first != second else int(first > 0)
                value = 1 + 1e-5 - affinity if kind == 2 else affinity + 1e-5
                sums[kind] = sums[kind] - value.log()
                counts[kind] += 1
    return sums, counts


@pytest.mark.parametrize(("size", "radius"), [((7, 9), 4), ((3, 2), 5), ((1, 6), 3)])
def test_sums_counts_and_gradients_are_those_of_a_loop_over_pairs(
    size: tuple[int, int], radius: int
) -> None:
    logits, labels = random_logits(2, *size).requires_grad_(), random_labels(2, *size)
    weights = torch.tensor([[0.3, 1.7, 0.9], [2.0, 0.1, 1.1]])
    sums, counts = affinity_sums(logits, labels, radius)
    (gradient,) = torch.autograd.grad((sums * weights).sum(), logits)
    for i in range(2):
        expected, expected_counts = naive_sums(logits[i], labels[i], radius)
        torch.testing.assert_close(sums[i], torch.stack(expected), rtol=1e-4, atol=1e-4)
        assert counts[i].tolist() == expected_counts
        total = sum(w * s for w, s in zip(weights[i], expected, strict=True))
        (expected_gradient,) = torch.autograd.grad(total, logits)
        torch.testing.assert_close(gradient[i], expected_gradient[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize(("size", "radius"), [((7, 9), 4), ((3, 2), 5), ((1, 6), 3), ((4, 4), 1)])
def test_offsets_taken_at_once_as_on_a_gpu_give_the_same_counts(
    size: tuple[int, int], radius: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, labels = random_logits(3, *size), random_labels(3, *size)
    logits[1] = 0
    expected = decided_pairs(logits, labels.long(), radius)

    def gathered(radius: int, _size: Any, _number: int, device: torch.device) -> list[Any]:
        return gathered_pairs(radius, at_once, device)

    monkeypatch.setattr(affinity_loss_module, "pair_groups", gathered)
    monkeypatch.setattr(affinity_loss_module, "stored_size", lambda *_: size)
    found = decided_pairs(logits, labels.long(), radius)
    assert bool(found.any()) is (radius > 1)
    assert torch.equal(found, expected)
    assert torch.equal(pair_counts(labels, radius), found.sum(dim=(2, 3)))


def test_gradients_are_those_of_finite_differences() -> None:
    logits, labels = random_logits(1, 4, 4, seed=5), random_labels(1, 4, 4)
    step = 1e-2
    live = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(affinity_sums(live, labels, 3).sums.sum(), live)
    for y in range(4):
        for x in range(4):
            shift = torch.zeros_like(logits)
            shift[0, y, x] = step
            ends = [affinity_sums(logits + s * shift, labels, 3).sums.sum() for s in (1, -1)]
            slope = float(ends[0] - ends[1]) / (2 * step)
            assert float(gradient[0, y, x]) == pytest.approx(slope, rel=0.02, abs=0.02)


def test_only_the_largest_cell_of_a_path_gets_a_gradient() -> None:
    logits = torch.tensor([[[0.1, -0.5, 0.7, 0.2]]], requires_grad=True)
    labels = torch.tensor([[[1, IGNORED, IGNORED, 2]]], dtype=torch.uint8)
    sums, counts = affinity_sums(logits, labels, 4)
    sums.sum().backward()
    assert counts.tolist() == [[0, 0, 1]]
    assert logits.grad is not None
    assert (logits.grad[0, 0] != 0).tolist() == [False, False, True, False]


def test_equal_edges_decide_each_pair_once() -> None:
    decided = decided_pairs(torch.zeros(1, 5, 6), torch.zeros(1, 5, 6).long(), 3)
    _, counts = naive_sums(torch.zeros(5, 6), torch.zeros(5, 6), 3)
    assert decided.sum(dim=(2, 3)).tolist() == [counts]


def test_the_loss_weighs_background_and_foreground_half_and_like_and_different_half() -> None:
    terms = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert affinity_loss(terms).tolist() == [0.25, 0.25, 0.5]


def test_means_are_over_the_pairs_of_their_kind() -> None:
    logits = torch.full((1, 1, 3), -100.0)
    labels = torch.tensor([[[0, 0, 1]]], dtype=torch.uint8)
    terms = affinity_terms(*affinity_sums(logits, labels, 2))
    expected = [[-log(1 + 1e-5), 0.0, -log(1e-5)]]
    np.testing.assert_allclose(terms.numpy(), expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (4, 4)])
def test_without_pairs_loss_and_gradient_are_zero(size: tuple[int, int]) -> None:
    logits = random_logits(1, *size).requires_grad_()
    labels = torch.full((1, *size), IGNORED, dtype=torch.uint8)
    loss = affinity_loss(affinity_terms(*affinity_sums(logits, labels, 5)))
    loss.sum().backward()
    assert loss.tolist() == [0]
    assert logits.grad is not None
    assert not logits.grad.any()


def test_certain_edges_keep_the_loss_finite() -> None:
    logits = torch.tensor([[[200.0, -200.0, 200.0]]], requires_grad=True)
    labels = torch.tensor([[[0, 0, 1]]], dtype=torch.uint8)
    sums, _ = affinity_sums(logits, labels, 3)
    sums.sum().backward()
    assert sums.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_mirrored_image_has_the_same_loss() -> None:
    logits, labels = random_logits(2, 8, 9), random_labels(2, 8, 9)
    found = affinity_sums(logits.flip(-1), labels.flip(-1), 4)
    expected = affinity_sums(logits, labels, 4)
    torch.testing.assert_close(found.sums, expected.sums)
    assert torch.equal(found.counts, expected.counts)


def test_a_cell_takes_the_label_nearest_to_its_centre() -> None:
    labels = torch.arange(8, dtype=torch.uint8).expand(1, 8, 8)
    assert labels_on_grid(labels, (2, 2))[0].tolist() == [[2, 6], [2, 6]]
