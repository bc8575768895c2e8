import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from torch import nn

from slams_ray.config import TrainingConfig
from slams_ray.systems.classification import ImageLabelTask, mean_average_precision


def random_result(seed: int, num_images: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((num_images, 4)) < 0.4).astype(np.uint8)
    labels[:, 3] = 0
    return {"scores": rng.random((num_images, 4)).astype(np.float32), "labels": labels}


def test_it_is_the_mean_of_scikit_learns_value_over_the_classes_that_occur() -> None:
    result = random_result(0)
    expected = [
        average_precision_score(result["labels"][:, c], result["scores"][:, c]) for c in range(3)
    ]
    assert mean_average_precision([result]) == pytest.approx(np.mean(expected))


def test_results_of_workers_are_pooled_and_not_averaged() -> None:
    whole = random_result(1)
    parts = [{k: v[:7] for k, v in whole.items()}, {k: v[7:] for k, v in whole.items()}]
    assert mean_average_precision(parts) == pytest.approx(mean_average_precision([whole]))
    mean = np.mean([mean_average_precision([part]) for part in parts])
    assert mean != pytest.approx(mean_average_precision([whole]))


def test_perfect_scores_have_map_1_and_a_single_class_works() -> None:
    labels = np.array([[1], [0], [1]], np.uint8)
    result = {"scores": labels.astype(np.float32), "labels": labels}
    assert mean_average_precision([result]) == 1


def test_no_occurring_class_gives_nan() -> None:
    labels = np.zeros((3, 2), np.uint8)
    assert np.isnan(mean_average_precision([{"scores": labels + 0.5, "labels": labels}]))


class RecordingNetwork(nn.Conv2d):
    """A 1x1 convolution that notes the sizes it is given."""

    def __init__(self) -> None:
        super().__init__(3, 2, 1, bias=False)
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(images.shape))
        return super().forward(images)


def test_images_are_scored_whole_at_one_length_of_their_longer_side() -> None:
    network = RecordingNetwork()
    rows = []
    for number, size in enumerate([(60, 30), (30, 45), (500, 1)]):
        buffer = io.BytesIO()
        Image.new("RGB", size, (number, 0, 0)).save(buffer, "PNG")
        rows.append(
            {"image_id": str(number), "image": buffer.getvalue(), "image_labels": [number % 2 + 1]}
        )
    task = ImageLabelTask(TrainingConfig(long_side_px=(30, 50)), ["background", "cat", "dog"])
    result = task.evaluate(network, rows)
    assert network.sizes == [(1, 3, 20, 40), (1, 3, 40, 27), (1, 3, 1, 40)]
    assert result["scores"].shape == (3, 2)
    assert result["labels"].tolist() == [[1, 0], [0, 1], [1, 0]]


Make = Callable[..., Any]


def rows_of_two_sizes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows twice; between them come their images, turned by a quarter."""
    turned = []
    for row in rows:
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(row["image"])) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG")
        turned.append(row | {"image": buffer.getvalue()})
    return [row for pair in zip(rows, turned, strict=True) for row in pair] + rows


@pytest.mark.parametrize("batch_size", [2, 3, 50])
def test_images_scored_together_get_the_scores_they_get_alone(
    batch_size: int, make_task: Make, rows: list[dict[str, Any]]
) -> None:
    task = make_task("classifier")
    network = task.build().network.eval()
    many = rows_of_two_sizes(rows)
    alone = task.evaluate(network, many)
    task.evaluation_batch = batch_size
    together = task.evaluate(network, many)
    np.testing.assert_allclose(together["scores"], alone["scores"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(together["labels"], alone["labels"])
    assert task.summarise([together]) == task.summarise([alone])


def test_bfloat16_changes_scores_and_not_the_map(
    make_task: Make, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task("classifier")
    network = task.build().network.eval()
    many = rows_of_two_sizes(rows)
    # Any CPU can compute bfloat16, some slowly.
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    task.evaluation_batch = 4
    task.training = replace(task.training, amp=True)
    rounded = task.evaluate(network, many)
    task.training = replace(task.training, amp=False)
    exact = task.evaluate(network, many)
    assert rounded["scores"].dtype == np.float32
    assert not np.array_equal(rounded["scores"], exact["scores"])
    assert task.summarise([rounded])["mean_average_precision"] == pytest.approx(
        task.summarise([exact])["mean_average_precision"]
    )
