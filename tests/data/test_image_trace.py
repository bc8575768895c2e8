"""Every mapper says which image it begins, and refuses those that have ended processes."""

from typing import Any

import numpy as np
import pytest
import torch

from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.shard_work import PrepareMapper
from slams_ray.errors import DataError
from slams_ray.inference.segmentation_predictor import SegmentationPredictor
from slams_ray.inference.shard_work import InferMapper
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.pseudo_label import ConfidentPair, Refinement
from slams_ray.refinement.shard_work import RefineMapper
from slams_ray.runtime.shards import Traced
from slams_ray.seeds.shard_work import CountMapper
from slams_ray.segmentation.shard_work import EvaluateMapper

MAPPERS = ("prepare", "infer", "count", "refine", "evaluate")


def make_mapper(name: str, shard: Any) -> Any:
    num_all_classes = len(shard.description.class_names)
    if name == "prepare":
        return PrepareMapper(shard.description, "fail")
    if name == "infer":
        return InferMapper(shard.predictor, num_all_classes)
    if name == "count":
        return CountMapper(("cam", "slams"), num_all_classes, 5)
    if name == "refine":
        kernels = CrfKernels(
            gaussian_sxy_px=3.0,
            gaussian_compat=3.0,
            bilateral_sxy_px=30.0,
            bilateral_srgb=5.0,
            bilateral_compat=10.0,
        )
        pair = ConfidentPair(background=0.3, chosen=0.4, foreground=0.55)
        refinement = Refinement(form="label", gt_prob=0.7, iterations=0, kernels=kernels)
        return RefineMapper(shard.description, "slams", pair, refinement)
    torch.manual_seed(0)
    network = SegmentationNetwork("tiny_resnet", 8, num_all_classes, "deeplabv2")
    predictor = SegmentationPredictor(
        network, scales=(1.0,), flip=False, device=torch.device("cpu")
    )
    return EvaluateMapper(shard.description, predictor)


def begin(mapper: TracedMapper, shard: Any) -> None:
    tables = {"images": shard.images, "activations": shard.activations}
    mapper(tables, shard.items if isinstance(mapper, PrepareMapper) else None)  # type: ignore[operator]


@pytest.mark.parametrize("name", MAPPERS)
def test_the_images_are_named_in_their_order_before_they_are_worked_on(
    name: str, shard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapper = make_mapper(name, shard)
    assert isinstance(mapper, Traced)
    said: list[str] = []
    mapper.trace = said.append
    begin(mapper, shard)
    assert [image.rsplit("/", 1)[-1].removesuffix(".jpg") for image in said] == [
        item.image_id for item in shard.items
    ]
    said.clear()

    def die(*_: object, **__: object) -> np.ndarray:
        raise KeyboardInterrupt

    for module in ("data.image", "refinement.shard_work", "data.batches"):
        monkeypatch.setattr(f"slams_ray.{module}.decode_image", die)
    monkeypatch.setattr("slams_ray.seeds.shard_work.unpack_maps", die)
    with pytest.raises(KeyboardInterrupt):
        begin(mapper, shard)
    assert len(said) == 1


@pytest.mark.parametrize("name", MAPPERS)
def test_an_image_that_has_ended_processes_is_refused_by_name(name: str, shard: Any) -> None:
    mapper = make_mapper(name, shard)
    item = shard.items[1]
    mapper.crashed = frozenset({item.image_id, item.image_path})
    with pytest.raises(DataError, match=f"{item.image_id}.* crashed the processes that read it"):
        begin(mapper, shard)
