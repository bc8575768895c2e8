import numpy as np
import pytest
import torch
from torch.nn import functional as F

from slams_ray.networks import resized_logits
from slams_ray.networks.resized_logits import (
    ResizedLogits,
    parts,
    resizing_weights,
    softmax_sums,
)

CPU = torch.device("cpu")
SIZES = [
    ((4, 5), (13, 17)),
    ((1, 1), (3, 2)),
    ((6, 7), (6, 7)),
    ((9, 12), (5, 4)),
    ((3, 8), (3, 60)),
]


def random_logits(size: tuple[int, int], count: int = 3) -> torch.Tensor:
    return torch.randn((count, 4, *size), generator=torch.Generator().manual_seed(0)) * 3


def part_bytes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Lets a part have so many bytes, whatever the number of threads."""
    monkeypatch.setattr(resized_logits, "PART_BYTES", number // torch.get_num_threads())


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_each_part_is_that_of_the_whole_resized_by_torch(
    source: tuple[int, int], size: tuple[int, int]
) -> None:
    logits = random_logits(source)
    whole = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    resized = ResizedLogits(logits, size)
    for images in (slice(0, 3), slice(1, 2)):
        for rows in (slice(0, size[0]), slice(0, 1), slice(size[0] - 2, size[0])):
            expected = whole[images, :, rows]
            torch.testing.assert_close(resized.part(images, rows), expected, atol=1e-5, rtol=1e-5)


def test_a_part_may_be_overwritten_and_bfloat16_is_resized_in_float32() -> None:
    logits = random_logits((6, 7)).bfloat16()
    resized = ResizedLogits(logits, (6, 7))
    everything = slice(0, 3), slice(0, 6)
    first = resized.part(*everything)
    assert first.dtype == torch.float32
    expected = first.clone()
    first.zero_()
    assert torch.equal(resized.part(*everything), expected)
    torch.testing.assert_close(expected, logits.float())


@pytest.mark.parametrize("number_of_bytes", [1, 700, 3000, 10**6])
@pytest.mark.parametrize("shape", [(3, 4, 13, 17), (1, 2, 1, 1), (5, 3, 8, 4), (0, 3, 8, 4)])
def test_parts_cover_each_row_of_each_image_once_and_fit(
    shape: tuple[int, int, int, int], number_of_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_bytes(monkeypatch, number_of_bytes)
    covered = np.zeros((shape[0], shape[2]), dtype=int)
    for images, rows in parts(shape, CPU):
        covered[images, rows] += 1
        own = covered[images, rows].shape
        row_bytes = 4 * shape[1] * shape[3]
        assert own == (1, 1) or own[0] * own[1] * row_bytes <= number_of_bytes
    assert (covered == 1).all()


def test_more_threads_have_larger_parts_and_a_gpu_has_one() -> None:
    threads = torch.get_num_threads()
    shape = (2, 21, 500, 500)
    try:
        torch.set_num_threads(1)
        alone = len(list(parts(shape, CPU)))
        torch.set_num_threads(2)
        assert len(list(parts(shape, CPU))) == pytest.approx(alone / 2, rel=0.1)
    finally:
        torch.set_num_threads(threads)
    assert list(parts(shape, torch.device("cuda"))) == [(slice(0, 2), slice(0, 500))]


@pytest.mark.parametrize("number_of_bytes", [1, 2000, 10**6])
def test_softmax_is_summed_over_passes_of_other_sizes(
    number_of_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_bytes(monkeypatch, number_of_bytes)
    passes = [random_logits(size) for size in ((4, 5), (7, 9), (20, 26))]
    found = torch.full((3, 4, 20, 26), torch.nan)
    for (images, rows), total in softmax_sums([ResizedLogits(one, (20, 26)) for one in passes]):
        found[images, :, rows] = total
    expected = sum(
        F.interpolate(one, size=(20, 26), mode="bilinear", align_corners=False).softmax(dim=1)
        for one in passes
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_weights_first_made_in_inference_mode_serve_a_training() -> None:
    with torch.inference_mode():
        weights = resizing_weights(5, 19, torch.float64)
    assert resizing_weights(5, 19, torch.float64) is weights
    values = torch.randn(5, dtype=torch.float64, requires_grad=True)
    (weights @ values).square().sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(19, dtype=torch.float64))
