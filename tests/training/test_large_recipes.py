"""voc12 and coco14: their budgets, and a step of each training on tiny crops and random weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import get_weight

from slams_ray.config import TrainingConfig
from slams_ray.networks.checkpoint import dump_network
from slams_ray.recipes import RECIPES
from slams_ray.refinement.walk.training import AffinityTask
from slams_ray.segmentation.training import SegmentationTask
from slams_ray.systems.cam import ClassifierTask
from slams_ray.systems.slams.activation import ActivationTask
from slams_ray.systems.slams.encoder import EncoderTask
from slams_ray.training.data_loading import ShardColumns
from slams_ray.training.sampling import num_steps
from slams_ray.training.training import Training, network_of

NUM_CLASSES = {"voc12": 20, "coco14": 80}


NUM_IMAGES = {"voc12": 10_582, "coco14": 82_081}
CROP_PX = 64


def shrunk(config: Any) -> Any:
    """The settings with tiny crops, two images a step, and random weights."""
    small = replace(
        config.training, crop_px=CROP_PX, long_side_px=(60, 90), batch_size=2, accumulation_steps=2
    )
    config = replace(config, training=small)
    if not hasattr(config, "backbone"):
        return config
    return replace(config, backbone=replace(config.backbone, weights="none"))


def take_one_step(
    task: Any, config: TrainingConfig, shard_rows: list[tuple[str, int]], root: Path
) -> Any:
    """The trained network; asserts that the step was finite and moved backbone and head."""
    source = ShardColumns(
        directory=str(root / "shards"), columns=("image", "image_labels", "pseudo_label")
    )
    training = Training(task=task, config=config, shard_rows=shard_rows, sources=[source])
    torch.manual_seed(0)
    module = training.build().train()
    before = {k: v.clone() for k, v in network_of(module).named_parameters()}
    samples = training.loader(next(iter(training.loading_tasks(0, 1, 0))))
    assert samples["image"].shape[1:] == (config.crop_px, config.crop_px, 3)
    batch = {name: torch.from_numpy(np.array(values[:2])) for name, values in samples.items()}
    metrics = training.step(module, training.optimizer(module), batch, 0, training.num_steps)
    assert torch.isfinite(metrics["loss"])
    assert metrics["gradient_norm"] > 0
    after = dict(network_of(module).named_parameters())
    moved = [k for k, v in before.items() if not torch.equal(v, after[k])]
    learning = any(p.requires_grad for k, p in after.items() if k.startswith("backbone."))
    assert any(k.startswith("backbone.") for k in moved) is learning
    assert any(not k.startswith("backbone.") for k in moved)
    frozen = {k for k, p in after.items() if not p.requires_grad}
    assert not frozen & set(moved)
    return network_of(module)


@pytest.mark.parametrize("recipe", NUM_CLASSES)
def test_every_network_starts_from_the_first_imagenet_weights(recipe: str) -> None:
    config = RECIPES[recipe]()
    for part in (config.encoder, config.classifier, config.segmentation):
        weights = get_weight(part.backbone.weights)
        assert type(weights).__name__.lower() == f"{part.backbone.name}_weights"
        assert weights.name == "IMAGENET1K_V1"


@pytest.mark.parametrize(
    ("recipe", "steps"), [("voc12", 20_000), ("coco14", 100_000)], ids=lambda value: str(value)
)
def test_the_final_network_takes_the_published_number_of_steps(recipe: str, steps: int) -> None:
    training = RECIPES[recipe]().segmentation.training
    found = num_steps(training.epochs, NUM_IMAGES[recipe], training.batch_size)
    assert found == pytest.approx(steps, abs=2)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", NUM_CLASSES)
def test_each_training_of_a_large_recipe_takes_a_step(
    recipe: str, tmp_path: Path, prepare_shards: Any
) -> None:
    config = RECIPES[recipe]()
    shard_rows, _ = prepare_shards(tmp_path)
    names = ("background", *(f"class {n}" for n in range(NUM_CLASSES[recipe])))
    parts = {
        name: shrunk(getattr(config, name))
        for name in ("encoder", "classifier", "activation", "affinity", "segmentation")
    }
    backbone = parts["classifier"].backbone
    encoder = EncoderTask(parts["encoder"], names)
    classifier = ClassifierTask(parts["classifier"], names)
    checkpoints = [
        dump_network(
            take_one_step(task, part.training, shard_rows, tmp_path), task.architecture, names
        )
        for task, part in ((encoder, parts["encoder"]), (classifier, parts["classifier"]))
    ]
    affinity = parts["affinity"]
    others = {
        "activation": ActivationTask(parts["activation"], backbone, names, *checkpoints),
        "affinity": AffinityTask(affinity.training, backbone, names, radius=affinity.radius),
        "segmentation": SegmentationTask(parts["segmentation"], names),
    }
    for name, task in others.items():
        take_one_step(task, parts[name].training, shard_rows, tmp_path)
