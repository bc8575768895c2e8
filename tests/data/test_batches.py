"""Which images come together, in which order, and when they are decoded."""

import io

import numpy as np
import pytest
from PIL import Image

from slams_ray.data.batches import decoded_batches
from slams_ray.errors import DataError

SIZES = [(8, 6), (4, 4), (8, 6), (8, 6), (4, 4), (8, 6), (5, 7)]
IDS = [f"image {number}" for number in range(len(SIZES))]


def encode(number: int, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


ENCODED = [encode(number, size) for number, size in enumerate(SIZES)]


@pytest.mark.parametrize("ahead", [0, 1, 3, 50])
def test_images_of_one_size_come_together_and_those_left_at_the_end(ahead: int) -> None:
    batches = list(decoded_batches(IDS, ENCODED, 3, ahead))
    assert [[index for index, _ in batch] for batch in batches] == [[0, 2, 3], [1, 4], [5], [6]]
    for index, image in (pair for batch in batches for pair in batch):
        assert image.shape == (*SIZES[index][::-1], 3)
        assert (image[..., 0] == index).all()


def test_who_wants_to_know_gets_images_one_by_one_and_named_before() -> None:
    entered: list[str] = []
    for batch in decoded_batches(IDS, ENCODED, 3, 4, entered.append):
        ((index, _),) = batch
        assert entered == IDS[: index + 1]
    assert entered == IDS


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_damaged_image_is_named_after_the_batches_before_it(ahead: int) -> None:
    damaged = [*ENCODED[:4], ENCODED[4][:20], *ENCODED[5:]]
    batches = decoded_batches(IDS, damaged, 3, ahead)
    assert [index for index, _ in next(batches)] == [0, 2, 3]
    with pytest.raises(DataError, match="image 4"):
        next(batches)


def test_no_more_is_decoded_ahead_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def decode(data: bytes, name: str) -> np.ndarray:
        begun.append(name)
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr("slams_ray.data.batches.decode_image", decode)
    batches = decoded_batches(IDS, ENCODED, 1, 2)
    for number in range(1, 4):
        next(batches)
        assert len(begun) <= number + 2


def test_a_batch_holds_no_more_pixels_than_allowed_and_a_large_image_is_alone() -> None:
    sizes = [(10, 10)] * 5 + [(40, 40)] * 2
    encoded = [encode(number, size) for number, size in enumerate(sizes)]
    ids = [str(number) for number in range(len(sizes))]
    batches = list(decoded_batches(ids, encoded, 8, 0, max_pixels=250))
    assert [[index for index, _ in batch] for batch in batches] == [[0, 1], [2, 3], [5], [6], [4]]
