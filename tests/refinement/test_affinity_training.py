import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from slams_ray.config import BackboneConfig, ClassifierConfig, TrainingConfig
from slams_ray.data.image import encode_mask
from slams_ray.errors import ConfigError
from slams_ray.networks.checkpoint import dump_network
from slams_ray.refinement.walk.training import AffinityTask
from slams_ray.systems.cam import ClassifierTask
from slams_ray.training.global_batch import mean_over_workers
from slams_ray.training.training import Training

CLASS_NAMES = ("background", "red", "green")
BACKBONE = BackboneConfig(name="tiny_resnet", output_stride=8)
# bfloat16 rounds more than the tolerance.
TRAINING = TrainingConfig(
    batch_size=4,
    crop_px=32,
    long_side_px=(28, 40),
    learning_rate=0.02,
    head_multiplier=1,
    amp=False,
)
NUM_STEPS = 3
Batch = dict[str, torch.Tensor]


def make_row(number: int) -> dict[str, Any]:
    """A JPEG with a bright square of a class, labelled but for a band; the last row has none."""
    rng = np.random.default_rng(number)
    image = rng.integers(90, 130, (30, 36, 3)).astype(np.uint8)
    label = np.zeros((30, 36), np.uint8)
    if number < 3:
        size = 10 + 4 * number
        image[4 : 4 + size, 6 : 6 + size, number % 2] = 250
        label[3 : 5 + size, 5 : 7 + size] = 255
        label[5 : 3 + size, 7 : 5 + size] = number % 2 + 1
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    mask = encode_mask(label, [(0, 0, 0)])
    return {"image_id": str(number), "image": buffer.getvalue(), "pseudo_label": mask}


def make_task(averaging: str = "batch", **settings: Any) -> AffinityTask:
    return AffinityTask(TRAINING, BACKBONE, CLASS_NAMES, radius=4, averaging=averaging, **settings)


def make_batch(task: AffinityTask) -> Batch:
    samples = [task.sampler.sample(make_row(i), np.random.default_rng(i)) for i in range(4)]
    return {k: torch.from_numpy(np.stack([s[k] for s in samples])) for k in samples[0]}


def train(averaging: str, num_steps: int, images: slice = slice(None)) -> tuple[Any, list[Batch]]:
    task = make_task(averaging)
    training = Training(task=task, config=TRAINING, shard_rows=[], sources=[])
    torch.manual_seed(0)
    module = training.build()
    optimizer = training.optimizer(module)
    is_alone = not dist.is_initialized()
    wrapped = module if is_alone else DistributedDataParallel(module, forward_sync_buffers=False)
    wrapped.train()
    batch = {k: v[images] for k, v in make_batch(task).items()}
    metrics = [
        training.step(wrapped, optimizer, batch, step, num_steps) for step in range(num_steps)
    ]
    return module.network.state_dict(), metrics


def train_worker(rank: int, root: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{root}/meet", rank=rank, world_size=2)
    images = slice(0, 3) if rank == 0 else slice(3, 4)
    for averaging in ("batch", "image"):
        found = train(averaging, NUM_STEPS, images)
        torch.save(found, f"{root}/{averaging}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_with_unequal_shares_take_the_steps_of_one(tmp_path: Path) -> None:
    spawn(train_worker, (str(tmp_path),), nprocs=2)
    for averaging in ("batch", "image"):
        expected, expected_metrics = train(averaging, NUM_STEPS)
        many = [torch.load(tmp_path / f"{averaging}-{rank}.pt") for rank in range(2)]
        for name, value in expected.items():
            torch.testing.assert_close(many[0][0][name], value, rtol=1e-4, atol=1e-6, msg=name)
        for step, metrics in enumerate(expected_metrics):
            for name in ("loss", "loss_background", "loss_foreground", "loss_different"):
                found = 0.75 * many[0][1][step][name] + 0.25 * many[1][1][step][name]
                torch.testing.assert_close(found, metrics[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("averaging", ["batch", "image"])
def test_training_lowers_the_loss_and_leaves_the_backbone(averaging: str) -> None:
    before, _ = train(averaging, 0)
    after, metrics = train(averaging, 60)
    assert metrics[-1]["loss"] < 0.75 * metrics[0]["loss"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith("backbone.") for name in changed)


def test_the_loss_of_the_batch_is_over_all_its_pairs() -> None:
    counts = torch.tensor([[4.0, 0.0, 0.0], [0.0, 0.0, 0.0], [6.0, 3.0, 1.0], [0.0, 0.0, 0.0]])
    assert mean_over_workers(counts).tolist() == [2.5, 0.75, 0.25]


def test_without_a_confident_pixel_the_step_is_none() -> None:
    task = make_task()
    module = task.build().train()
    batch = make_batch(task)
    batch["target"] = torch.full_like(batch["target"], 255)
    loss, metrics = module(batch, np.random.default_rng(0), True)
    loss.backward()
    assert loss == 0
    assert metrics["labelled_pixels"] == 0
    learning = [p for p in module.parameters() if p.requires_grad]
    assert all(p.grad is not None and not p.grad.any() for p in learning)


@pytest.mark.parametrize(("bias", "mean"), [(-50.0, 0.0), (50.0, 1.0)])
def test_edges_that_are_all_alike_show_in_the_metrics(bias: float, mean: float) -> None:
    task = make_task()
    module = task.build().train()
    torch.nn.init.zeros_(module.network.head.weight)
    torch.nn.init.constant_(module.network.head.bias, bias)
    _, metrics = module(make_batch(task), np.random.default_rng(0), True)
    assert metrics["edge_mean"] == pytest.approx(mean, abs=1e-6)
    assert metrics["edge_contrast"] == pytest.approx(0, abs=1e-6)


def dump_classifier(backbone: BackboneConfig) -> tuple[bytes, dict[str, torch.Tensor]]:
    task = ClassifierTask(ClassifierConfig(backbone=backbone, training=TRAINING), CLASS_NAMES)
    network = task.build().network
    return dump_network(network, task.architecture, CLASS_NAMES), network.backbone.state_dict()


def test_without_weights_the_backbone_is_that_of_the_classifier() -> None:
    data, expected = dump_classifier(BACKBONE)
    found = make_task(classifier=data).build().network.backbone.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_classifier_of_another_architecture_raises() -> None:
    data, _ = dump_classifier(BackboneConfig(name="mobilenet_v2", output_stride=16))
    with pytest.raises(ConfigError, match="another backbone"):
        make_task(classifier=data).build()
