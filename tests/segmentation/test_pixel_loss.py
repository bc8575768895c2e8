import numpy as np
import pytest
import torch
from torch.nn import functional as F

from slams_ray.networks import resized_logits
from slams_ray.segmentation.pixel_loss import segmentation_loss


def mean_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over the labelled pixels of each image."""
    return segmentation_loss(logits, target, (target != 255).sum(dim=(1, 2)))


def test_segmentation_loss_equals_a_loop_over_annotated_pixels() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 2, (3, 4, 5, 6))
    target = rng.integers(0, 4, (3, 5, 6))
    target[rng.random(target.shape) < 0.3] = 255
    expected = []
    for scores, classes in zip(logits, target, strict=True):
        pixels = [
            np.log(np.exp(scores[:, i, j]).sum()) - scores[classes[i, j], i, j]
            for i, j in zip(*np.nonzero(classes != 255), strict=True)
        ]
        expected.append(np.mean(pixels))
    found = mean_loss(torch.from_numpy(logits), torch.from_numpy(target))
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_segmentation_loss_has_the_gradient_of_softmax_less_target() -> None:
    rng = np.random.default_rng(9)
    logits = torch.from_numpy(rng.normal(0, 2, (2, 4, 5, 6))).requires_grad_()
    target = torch.from_numpy(rng.integers(0, 4, (2, 5, 6)))
    ignored = torch.from_numpy(rng.random((2, 5, 6)) < 0.3)
    annotated = torch.where(ignored, 255, target)
    mean_loss(logits, annotated).sum().backward()
    one_hot = torch.nn.functional.one_hot(target, 4).permute(0, 3, 1, 2)
    expected = (logits.detach().softmax(dim=1) - one_hot) * ~ignored[:, None]
    expected /= (~ignored).sum(dim=(1, 2))[:, None, None, None]
    torch.testing.assert_close(logits.grad, expected, atol=1e-7, rtol=1e-5)


def test_segmentation_loss_resizes_logits_to_the_target() -> None:
    logits = torch.tensor([[[[8.0]], [[0.0]]]])
    target = torch.zeros((1, 4, 4), dtype=torch.long)
    loss = mean_loss(logits, target)
    assert loss.tolist() == pytest.approx([np.log1p(np.exp(-8.0))], rel=1e-3)


def test_an_image_that_is_all_ignored_has_segmentation_loss_0_and_gradient_0() -> None:
    logits = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    target = torch.full((2, 8, 8), 255)
    target[1, 0, 0] = 1
    loss = mean_loss(logits, target)
    loss.mean().backward()
    assert loss[0].item() == 0
    assert loss[1].item() > 0
    assert logits.grad is not None
    assert logits.grad[0].abs().max() == 0
    assert torch.isfinite(logits.grad).all()


def by_torch(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    resized = F.interpolate(logits, size=target.shape[1:], mode="bilinear", align_corners=False)
    pixel = F.cross_entropy(resized, target, ignore_index=255, reduction="none")
    return pixel.sum(dim=(1, 2)) / (target != 255).sum(dim=(1, 2))


def logits_and_labels(
    size: tuple[int, int], pixels: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Three images of four classes."""
    rng = np.random.default_rng(3)
    logits = torch.from_numpy(rng.normal(0, 3, (3, 4, *size))).requires_grad_()
    target = rng.integers(0, 4, (3, *pixels))
    target[rng.random(target.shape) < 0.3] = 255
    return logits, torch.from_numpy(target)


@pytest.mark.parametrize("part_bytes", [1, 2000, 10**6])
@pytest.mark.parametrize(
    ("size", "pixels"), [((4, 5), (13, 17)), ((1, 1), (6, 5)), ((7, 6), (7, 6)), ((9, 9), (5, 4))]
)
def test_loss_and_gradient_of_any_parts_are_those_of_torch(
    size: tuple[int, int],
    pixels: tuple[int, int],
    part_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resized_logits, "PART_BYTES", part_bytes)
    logits, target = logits_and_labels(size, pixels)
    weights = torch.tensor([1.0, -2.0, 0.5])
    expected = by_torch(logits, target)
    (of_torch,) = torch.autograd.grad((expected * weights).sum(), logits)
    found = mean_loss(logits, target)
    (gradient,) = torch.autograd.grad((found * weights).sum(), logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, of_torch)


def test_logits_far_apart_give_a_finite_loss() -> None:
    """The exponential of -300 is 0 in float32."""
    logits = torch.tensor([[[[300.0]], [[0.0]], [[-300.0]]]], requires_grad=True)
    target = torch.tensor([[[0, 1], [2, 2]]])
    loss = mean_loss(logits, target)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([(0 + 300 + 600 + 600) / 4])
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.flatten(), torch.tensor([0.75, -0.25, -0.5]))


def test_autocast_does_not_round_the_loss() -> None:
    logits, target = logits_and_labels((4, 5), (13, 17))
    logits = logits.detach().bfloat16().requires_grad_()
    expected = by_torch(logits.detach().float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        found = mean_loss(logits, target)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


def test_a_label_without_a_class_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="out of bounds"):
        mean_loss(torch.zeros((1, 3, 2, 2)), torch.full((1, 4, 4), 3))
