import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from slams_ray.data.stored_maps import stored_size
from slams_ray.data.transforms import normalise, pyramid
from slams_ray.errors import ConfigError
from slams_ray.inference.activation_predictor import ActivationPredictor
from slams_ray.inference.segmentation_predictor import SegmentationPredictor
from slams_ray.networks import resized_logits
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.conditioned_network import ConditionedNetwork
from slams_ray.networks.correlation_network import CorrelationNetwork
from slams_ray.networks.segmentation_network import SegmentationNetwork

CPU = torch.device("cpu")
SCALES = (0.5, 1.0, 1.5)


def activation_predictor(
    scales: tuple[float, ...] = SCALES, flip: bool = True, seeds: tuple[int, ...] = (0,)
) -> ActivationPredictor:
    networks = {}
    for seed in seeds:
        torch.manual_seed(seed)
        networks[f"network{seed}"] = ActivationNetwork("tiny_resnet", 8, 4)
    return ActivationPredictor(networks, scales=scales, flip=flip, device=CPU)


def segmentation_predictor(
    scales: tuple[float, ...] = SCALES, flip: bool = True
) -> SegmentationPredictor:
    torch.manual_seed(0)
    network = SegmentationNetwork("tiny_resnet", 8, 4, "deeplabv2")
    torch.nn.init.normal_(network.head.branches[0].weight, std=0.5)
    return SegmentationPredictor(network, scales=scales, flip=flip, device=CPU)


def random_image(height: int = 37, width: int = 50) -> np.ndarray:
    """Smooth, so that rescaled copies resemble one another."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    resized = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized)


def encode(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def largest_difference(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


class SizesSeen(torch.nn.Module):
    """Records the images that it sees."""

    def __init__(self, **views: bool) -> None:
        super().__init__()
        self.seen: list[torch.Size] = []
        for name, value in views.items():
            setattr(self, name, value)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images.shape)
        return torch.nn.functional.avg_pool2d(images[:, :1].abs(), 4).expand(-1, 2, -1, -1)


def test_a_network_can_refuse_other_sizes_and_mirror_images() -> None:
    plain = SizesSeen()
    native = SizesSeen(native_size_only=True)
    alone = SizesSeen(native_size_only=True, mirrored=False)
    networks: dict[str, torch.nn.Module] = {"plain": plain, "native": native, "alone": alone}
    predictor = ActivationPredictor(networks, scales=(0.5, 2.0), flip=True, device=CPU)
    found = predictor.activate_batch([random_image(32, 48)] * 2, [[1], [1, 2]])
    assert plain.seen == [(4, 3, 16, 24), (4, 3, 64, 96)]
    assert native.seen == [(4, 3, 32, 48)]
    assert alone.seen == [(2, 3, 32, 48)]
    assert [maps["alone"].shape for maps in found] == [(1, 8, 12), (2, 8, 12)]
    assert all(maps["alone"].max() == 255 for maps in found)


@pytest.mark.parametrize("size", [(37, 50), (32, 32), (3, 5)])
def test_maps_are_uint8_at_stride_4_one_per_present_class(size: tuple[int, int]) -> None:
    maps = activation_predictor().activate_batch([random_image(*size)], [[2, 4]])[0]["network0"]
    assert maps.dtype == np.uint8
    assert maps.shape == (2, *stored_size(*size))


def test_the_highest_logit_is_set_for_each_network_alone() -> None:
    free = activation_predictor(seeds=(0, 1))
    plain = free.activate_batch([random_image()], [[1, 3]])[0]
    limited = ActivationPredictor(
        free.networks, scales=SCALES, flip=True, device=CPU, max_logits={"network1": 1e-3}
    ).activate_batch([random_image()], [[1, 3]])[0]
    np.testing.assert_array_equal(limited["network0"], plain["network0"])
    at_the_top = [(maps == 255).mean() for maps in (plain["network1"], limited["network1"])]
    assert at_the_top[0] < 0.1 < at_the_top[1]


def test_a_batch_gains_one_column_per_network_and_keeps_its_own() -> None:
    image = random_image()
    batch = {
        "image_id": ["a", "b"],
        "image": [encode(image), encode(image[:20])],
        "image_labels": [[1, 3], []],
    }
    result = activation_predictor(seeds=(0, 1))(batch)
    assert set(result) == {"image_id", "image", "image_labels", "network0", "network1"}
    assert result["image_id"] == ["a", "b"]
    for column in ("network0", "network1"):
        assert [maps.shape for maps in result[column]] == [(2, 10, 13), (0, 5, 13)]
    assert largest_difference(result["network0"][0], result["network1"][0]) > 0


@pytest.mark.parametrize("flip", [True, False])
def test_images_taken_together_come_out_as_one_by_one(flip: bool) -> None:
    image = random_image()
    pictures = [image, image[:20], image[::-1], image[:, ::-1], image[:20, ::-1], image]
    labels: list[list[int]] = [[1, 3], [2], [], [4, 1, 2], [3], [2]]
    batch = {
        "image_id": [str(number) for number in range(len(pictures))],
        "image": [encode(np.ascontiguousarray(picture)) for picture in pictures],
        "image_labels": labels,
    }
    alone = activation_predictor(flip=flip, seeds=(0, 1))
    together = ActivationPredictor(
        alone.networks, scales=SCALES, flip=flip, device=CPU, batch_size=3
    )
    expected, found = alone(batch), together(batch)
    for column in ("network0", "network1"):
        for number, maps in enumerate(expected[column]):
            assert found[column][number].shape == maps.shape
            if maps.size:
                assert largest_difference(found[column][number], maps) <= 1
    single = segmentation_predictor(flip=flip)
    several = SegmentationPredictor(
        single.network, scales=SCALES, flip=flip, device=CPU, batch_size=3
    )
    for one, other in zip(single(batch)["prediction"], several(batch)["prediction"], strict=True):
        assert one.shape == other.shape
        assert (one == other).mean() > 0.999


def test_networks_do_not_influence_one_another() -> None:
    together = activation_predictor(seeds=(0, 1)).activate_batch([random_image()], [[1, 2]])[0]
    alone = activation_predictor(seeds=(1,)).activate_batch([random_image()], [[1, 2]])[0]
    np.testing.assert_array_equal(together["network1"], alone["network1"])


def test_a_class_has_the_same_map_whatever_else_is_present() -> None:
    predictor, image = activation_predictor(), random_image()
    everything = predictor.activate_batch([image], [[1, 2, 3, 4]])[0]["network0"]
    for class_index in (1, 2, 3, 4):
        alone = predictor.activate_batch([image], [[class_index]])[0]["network0"]
        assert largest_difference(alone[0], everything[class_index - 1]) == 0


def test_a_map_is_the_channel_of_its_class_with_class_1_first() -> None:
    predictor, image = activation_predictor((1.0,), flip=False), random_image()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        logits = predictor.networks["network0"](pixels).relu()
    maps = predictor.activate_batch([image], [[4, 1]])[0]["network0"]
    for found, channel in zip(maps, (3, 0), strict=True):
        resized = torch.nn.functional.interpolate(
            logits[:, channel : channel + 1], size=(10, 13), mode="bilinear"
        )[0, 0].numpy()
        expected = 255 * resized / (resized.max() + 1e-5)
        assert np.abs(found - expected).max() < 0.51


def test_an_image_without_labels_has_an_empty_stack_of_the_stored_size() -> None:
    maps = activation_predictor().activate_batch([random_image()], [[]])[0]["network0"]
    assert maps.dtype == np.uint8
    assert maps.shape == (0, 10, 13)


def test_every_map_that_is_anywhere_positive_peaks_at_255() -> None:
    maps = activation_predictor().activate_batch([random_image()], [[1, 2, 3, 4]])[0]["network0"]
    peaks = set(maps.max(axis=(1, 2)).tolist())
    assert 255 in peaks
    assert peaks <= {0, 255}


def test_inference_is_deterministic_and_starts_in_eval_mode() -> None:
    predictor, image = activation_predictor(), random_image()
    first = predictor.activate_batch([image], [[1, 2]])[0]["network0"]
    assert not predictor.networks["network0"].training
    np.testing.assert_array_equal(predictor.activate_batch([image], [[1, 2]])[0]["network0"], first)


@pytest.mark.parametrize(("scales", "tolerance"), [((1.0,), 0), (SCALES, 1)])
def test_a_mirrored_image_has_mirrored_maps(scales: tuple[float, ...], tolerance: int) -> None:
    predictor, image = activation_predictor(scales), random_image()
    straight = predictor.activate_batch([image], [[1, 2, 3, 4]])[0]["network0"]
    mirrored = predictor.activate_batch([image[:, ::-1]], [[1, 2, 3, 4]])[0]["network0"]
    assert largest_difference(mirrored, straight[..., ::-1]) <= tolerance


def test_without_flip_the_maps_are_not_mirrored_along() -> None:
    predictor, image = activation_predictor((1.0,), flip=False), random_image()
    straight = predictor.activate_batch([image], [[1, 2, 3, 4]])[0]["network0"]
    mirrored = predictor.activate_batch([image[:, ::-1]], [[1, 2, 3, 4]])[0]["network0"]
    assert largest_difference(mirrored, straight[..., ::-1]) > 1


@pytest.mark.parametrize("size", [(37, 50), (3, 5)])
def test_a_prediction_has_the_size_of_the_image_and_known_classes(size: tuple[int, int]) -> None:
    prediction = segmentation_predictor().predict(random_image(*size))
    assert prediction.dtype == np.uint8
    assert prediction.shape == size
    assert prediction.max() <= 4


def test_a_mirrored_image_has_a_mirrored_prediction() -> None:
    predictor, image = segmentation_predictor((1.0,)), random_image()
    straight, mirrored = predictor.predict(image), predictor.predict(image[:, ::-1])
    assert len(np.unique(straight)) > 1
    np.testing.assert_array_equal(mirrored, straight[:, ::-1])


def test_one_scale_without_flip_is_the_argmax_of_the_resized_logits() -> None:
    predictor, image = segmentation_predictor((1.0,), flip=False), random_image()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        logits = predictor.network(pixels)
    resized = torch.nn.functional.interpolate(logits, size=(37, 50), mode="bilinear")
    agreement = predictor.predict(image) == resized[0].argmax(dim=0).numpy()
    assert agreement.mean() > 0.999


def test_labels_and_confidence_in_parts_are_those_of_whole_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor, image = segmentation_predictor(), random_image()
    predictor.batch_size = 2
    images = [image, image[::-1].copy()]
    pixels = normalise(torch.from_numpy(np.stack(images)))
    scores = torch.zeros((2, 5, 37, 50))
    with torch.inference_mode():
        for inputs in pyramid(pixels, SCALES, flip=False):
            for mirrored in (False, True):
                logits = predictor.network(inputs.flip(-1) if mirrored else inputs)
                resized = torch.nn.functional.interpolate(logits, size=(37, 50), mode="bilinear")
                own = resized.softmax(dim=1)
                scores += own.flip(-1) if mirrored else own
    for part_bytes in (1, 3000, 10**6):
        monkeypatch.setattr(resized_logits, "PART_BYTES", part_bytes)
        for index, (labels, confidence) in enumerate(predictor.predict_each(images)):
            assert (labels == scores[index].argmax(dim=0).numpy()).mean() > 0.999
            np.testing.assert_allclose(confidence, scores[index].amax(dim=0) / 6, atol=1e-5)


def test_a_batch_gains_the_prediction_of_each_image() -> None:
    image = random_image()
    batch = {"image_id": ["a", "b"], "image": [encode(image), encode(image[:21])]}
    predictor = segmentation_predictor()
    result = predictor(batch)
    assert [p.shape for p in result["prediction"]] == [(37, 50), (21, 50)]
    np.testing.assert_array_equal(result["prediction"][0], predictor.predict(image))


@pytest.mark.parametrize("refined", [False, True])
def test_images_of_a_list_have_the_labels_and_confidence_that_they_have_alone(
    refined: bool,
) -> None:
    def refine(pixels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        return 4 - probabilities.argmax(axis=0).astype(np.uint8)

    predictor = segmentation_predictor()
    predictor.batch_size = 3
    predictor.refine = refine if refined else None
    image = random_image()
    images = [image, image[:20], image[:, ::-1].copy(), image[::-1].copy()]
    found = predictor.predict_each(images)
    assert len(found) == len(images)
    for (labels, confidence), one in zip(found, images, strict=True):
        own_labels, own_confidence = predictor.predict_with_confidence(one)
        assert (labels == own_labels).mean() > 0.999
        np.testing.assert_allclose(confidence, own_confidence, atol=1e-3)
        assert confidence.dtype == np.float32
    assert predictor.predict_each([]) == []


def test_a_refiner_gets_each_image_with_its_probabilities() -> None:
    image = random_image()
    plain = segmentation_predictor()
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def refine(image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        seen.append((image, probabilities))
        return 4 - probabilities.argmax(axis=0).astype(np.uint8)

    refining = SegmentationPredictor(
        plain.network, scales=SCALES, flip=True, device=CPU, batch_size=2, refine=refine
    )
    batch = {"image_id": ["a", "b", "c"], "image": [encode(i) for i in (image, image[:20], image)]}
    expected, found = plain(batch)["prediction"], refining(batch)
    assert set(plain(batch)) == {"image_id", "image", "prediction"}
    for prediction, before, after in zip(
        expected, found["prediction"], found["refined_prediction"], strict=True
    ):
        np.testing.assert_array_equal(before, prediction)
        np.testing.assert_array_equal(after, 4 - prediction)
    for given, probabilities in seen:
        assert probabilities.shape == (5, *given.shape[:2])
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(refining.predict(image), 4 - expected[0])


def test_labels_reach_the_networks_that_need_them() -> None:
    torch.manual_seed(0)
    network = CorrelationNetwork(backbone_name="tiny_resnet", output_stride=8, num_classes=4)
    predictor = ActivationPredictor({"seam": network}, scales=SCALES, flip=True, device=CPU)
    images = [random_image(), random_image(), random_image()[:, ::-1].copy()]
    labels = [[2, 4], [], [2]]
    together = predictor.activate_batch(images, labels)
    for number in (0, 2):
        alone = predictor.activate_batch([images[number]], [labels[number]])[0]
        assert largest_difference(together[number]["seam"], alone["seam"]) <= 1
    assert together[1]["seam"].shape[0] == 0
    # Fewer rivals for a pixel change the map of a class.
    both, one = (predictor.activate_batch(images[:1], [ls])[0]["seam"] for ls in ([2, 4], [2]))
    assert largest_difference(both[:1], one) > 1


def test_pixel_labels_change_the_maps_of_the_network_that_was_trained_on_them_alone() -> None:
    torch.manual_seed(0)
    conditioned = ConditionedNetwork("tiny_resnet", 8, 4)
    plain = ActivationNetwork("tiny_resnet", 8, 4)
    for branch in conditioned.head.branches:
        torch.nn.init.normal_(branch.weight, std=0.5)
    networks = {"amn": conditioned, "cam": plain}
    predictor = ActivationPredictor(networks, scales=SCALES, flip=True, device=CPU)
    image = random_image()
    labels = np.zeros(image.shape[:2], np.uint8)
    labels[:20] = 255
    without, background, some = (
        predictor.activate_batch([image], [[1, 3]], given)[0]
        for given in (None, [np.zeros_like(labels)], [labels])
    )
    assert all(np.array_equal(maps["cam"], without["cam"]) for maps in (background, some))
    np.testing.assert_array_equal(background["amn"], without["amn"])
    assert not np.array_equal(some["amn"][:, :5], without["amn"][:, :5])
    np.testing.assert_array_equal(some["amn"][:, 5:], without["amn"][:, 5:])


def test_batches_that_do_not_fit_into_memory_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = segmentation_predictor()
    predictor.batch_size = 4
    images = [random_image() for _ in range(5)]
    batch = {"image_id": list("abcde"), "image": [encode(image) for image in images]}
    expected = predictor(batch)["prediction"]
    summed, sizes = predictor._summed, []

    def limited(group: Sequence[np.ndarray]) -> Any:
        sizes.append(len(group))
        if len(group) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return summed(group)

    monkeypatch.setattr(predictor, "_summed", limited)
    found = predictor(batch)["prediction"]
    assert sizes == [4, 2, 1, 1, 2, 1, 1, 1]
    for prediction, whole in zip(found, expected, strict=True):
        np.testing.assert_array_equal(prediction, whole)


def test_an_image_that_does_not_fit_alone_is_an_error_that_says_what_to_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = segmentation_predictor()

    def full(group: Sequence[np.ndarray]) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(predictor, "_summed", full)
    with pytest.raises(ConfigError, match=r"does not fit.*data\.max_side_px"):
        predictor({"image_id": ["a"], "image": [encode(random_image())]})
