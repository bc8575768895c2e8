"""Grad-CAM, affinity of patches and boxes, against loops and by hand."""

import pytest
import torch

from slams_ray.networks.attention_maps import (
    balanced_affinity,
    boxes_mask,
    grad_cam,
    present_softmax,
    refined_in_boxes,
    resized_positions,
    token_maps,
)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_positions_of_the_own_grid_stay_and_others_are_resized(mode: str) -> None:
    positions = torch.randn(16, 5)
    assert torch.equal(resized_positions(positions, (4, 4), mode), positions)
    # Rows of equal positions stay equal, whatever the grid.
    rows = torch.arange(4.0).repeat_interleave(4)[:, None].expand(16, 5)
    found = resized_positions(rows, (8, 2), mode).view(8, 2, 5)
    torch.testing.assert_close(found[:, 0], found[:, 1])
    assert (found[1:, 0, 0] > found[:-1, 0, 0]).all()


def test_grad_cam_is_the_sum_of_channels_weighted_by_their_mean_gradient() -> None:
    torch.manual_seed(0)
    activations, gradients = torch.randn(2, 6, 4), torch.randn(2, 6, 4)
    found = grad_cam(activations, gradients)
    for b in range(2):
        raw = []
        for n in range(6):
            total = 0.0
            for d in range(4):
                weight = sum(float(gradients[b, m, d]) for m in range(6)) / 6
                total += weight * float(activations[b, n, d])
            raw.append(max(total, 0.0))
        low, high = min(raw), max(raw)
        expected = torch.tensor([(value - low) / (high - low) for value in raw])
        torch.testing.assert_close(found[b], expected, atol=1e-5, rtol=1e-4)


def test_the_affinity_is_that_of_a_loop() -> None:
    torch.manual_seed(0)
    attention = torch.rand(1, 5, 5)
    m = attention[0].clone()
    for _ in range(3):
        for j in range(5):
            m[:, j] = m[:, j] / m[:, j].sum()
        for i in range(5):
            m[i] = m[i] / m[i].sum()
    m = (m + m.T) / 2
    expected = torch.tensor(
        [[sum(float(m[i, k] * m[k, j]) for k in range(5)) for j in range(5)] for i in range(5)]
    )
    found = balanced_affinity(attention)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found, found.T)
    # Nearly doubly stochastic: a constant map keeps its value.
    torch.testing.assert_close(found.sum(dim=1), torch.ones(5), atol=0.05, rtol=0)


def test_boxes_enclose_each_region_above_the_share_of_the_maximum() -> None:
    drawn = ["a.......", ".a......", "......b.", "....bb..", "....c..."]
    map_ = torch.tensor([[{"a": 1.0, "b": 0.8, "c": 0.3}.get(x, 0.1) for x in r] for r in drawn])
    boxes = ["xx......", "xx......", "....xxx.", "....xxx.", "........"]
    expected = torch.tensor([[x == "x" for x in row] for row in boxes])
    assert torch.equal(boxes_mask(map_, 0.4), expected)
    assert not boxes_mask(torch.zeros(3, 4), 0.4).any()


def test_only_the_map_in_boxes_is_spread() -> None:
    map_ = torch.tensor([[1.0, 0.3], [0.0, 0.0]])
    affinity = torch.rand(4, 4)
    found = refined_in_boxes(map_, affinity, 0.4)
    torch.testing.assert_close(found.flatten(), affinity[:, 0])
    torch.testing.assert_close(
        refined_in_boxes(map_, affinity, 0.2).flatten(), affinity[:, 0] + 0.3 * affinity[:, 1]
    )


def test_only_present_classes_and_backgrounds_compete() -> None:
    cosines = torch.tensor([[0.2, 0.9, 0.1, 0.3], [0.2, 0.9, 0.1, 0.3]])
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    found = present_softmax(cosines, labels, 10.0)
    e = (10 * cosines[0]).exp()
    rest = e[0] + e[2] + e[3]
    torch.testing.assert_close(found[0], torch.stack([e[0] / rest, torch.tensor(0.0), e[2] / rest]))
    assert not found[1].any()


def test_token_maps_are_those_of_a_loop() -> None:
    torch.manual_seed(0)
    num_classes, patches, blocks = 2, 6, 4
    attention = torch.rand(blocks, 1, num_classes + patches, num_classes + patches)
    logits = torch.randn(1, num_classes, 2, 3)
    found = token_maps(attention, logits, 3)
    assert found.shape == (1, 2, 2, 3)
    for k in range(num_classes):
        flat = logits[0, k].flatten()
        own = [
            sum(float(attention[n, 0, k, num_classes + j]) for n in (1, 2, 3))
            * max(float(flat[j]), 0.0)
            for j in range(patches)
        ]
        spread = [
            sum(
                float(attention[n, 0, num_classes + i, num_classes + j]) * own[j]
                for n in range(blocks)
                for j in range(patches)
            )
            for i in range(patches)
        ]
        low, high = min(spread), max(spread)
        expected = torch.tensor([(value - low) / (high - low) for value in spread])
        torch.testing.assert_close(found[0, k].flatten(), expected, atol=1e-4, rtol=1e-3)
