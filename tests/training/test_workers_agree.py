"""One worker and several workers take the same optimisation steps, in every training."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from slams_ray.config import PipelineConfig, TrainingConfig
from slams_ray.networks.checkpoint import dump_network
from slams_ray.segmentation.training import SegmentationTask
from slams_ray.systems.cam import ClassifierTask
from slams_ray.systems.occse import OccseTask
from slams_ray.systems.registry import SYSTEMS
from slams_ray.systems.slams.activation import ActivationTask
from slams_ray.systems.slams.encoder import EncoderTask
from slams_ray.systems.system import NetworkTraining
from slams_ray.training.data_loading import ShardColumns
from slams_ray.training.training import Training
from tests.tiny_tasks import inject_tiny_networks

PEERS = ("recam", "occse", "puzzle", "seam", "cpn", "amn", "clims", "mctformer")
NUM_STEPS = 5
TOLERANCE = 5e-5


def make_trainings(
    config: PipelineConfig, root: Path, shard_rows: list[tuple[str, int]], names: list[str]
) -> dict[str, Training]:
    torch.manual_seed(5)
    encoder = EncoderTask(config.encoder, names)
    classifier = ClassifierTask(config.classifier, names)
    frozen = [
        dump_network(task.build().network, task.architecture, names)
        for task in (encoder, classifier)
    ]
    activation = ActivationTask(config.activation, config.classifier.backbone, names, *frozen)
    filled = replace(
        config.activation,
        mask="normalised",
        fill="image",
        binarisation_width=0.1,
        losses=replace(config.activation.losses, pseudo_labels=1.0),
    )
    tasks: dict[str, tuple[Any, TrainingConfig]] = {
        "encoder": (encoder, config.encoder.training),
        "classifier": (classifier, config.classifier.training),
        "activation": (activation, config.activation.training),
        "activation filled by images, cut, and with pseudo labels": (
            ActivationTask(filled, config.classifier.backbone, names, *frozen),
            filled.training,
        ),
        "segmentation": (
            SegmentationTask(config.segmentation, names),
            config.segmentation.training,
        ),
    }
    for name in PEERS:
        (peer,) = (t for t in SYSTEMS[name].trainings(config) if t.stage == f"train_{name}")
        assert isinstance(peer, NetworkTraining)
        checkpoints = {"train_classifier": frozen[1]}
        tasks[name] = (peer.make_task(names, checkpoints), peer.config.training)
    gain = replace(config.occse, judge="self", target="score", mask="sigmoid")
    backbone = replace(config.classifier.backbone, freeze_batch_norm=True)
    tasks["GAIN"] = (OccseTask(gain, backbone, names, frozen[1]), gain.training)
    columns = ("image", "image_labels", "pseudo_label")
    source = ShardColumns(directory=str(root / "shards"), columns=columns)
    return {
        name: Training(task=task, config=training, shard_rows=shard_rows, sources=[source], seed=1)
        for name, (task, training) in tasks.items()
    }


def train_all(
    rank: int,
    num_workers: int,
    root: str,
    trainings: dict[str, Training],
    output: str,
    device: str = "cpu",
) -> None:
    torch.set_num_threads(1)
    # By default, convolutions of a GPU round their inputs to TF32.
    torch.backends.cudnn.allow_tf32 = False
    if num_workers > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{root}/rendezvous", rank=rank, world_size=num_workers
        )
    started, finished = {}, {}
    for name, training in trainings.items():
        torch.manual_seed(0)
        module = training.build(device).to(device)
        optimizer = training.optimizer(module)
        wrapped = (
            DistributedDataParallel(module, forward_sync_buffers=False)
            if num_workers > 1
            else module
        )
        wrapped.train()
        started[name] = {key: value.cpu().clone() for key, value in module.state_dict().items()}
        samples: dict[str, list[np.ndarray]] = {}
        for loading_task in training.loading_tasks(rank, num_workers, 0):
            for key, value in training.loader(loading_task).items():
                samples.setdefault(key, []).append(value)
        stream = {k: torch.from_numpy(np.concatenate(v)).to(device) for k, v in samples.items()}
        share = training.batch_share(rank, num_workers)
        for step in range(NUM_STEPS):
            batch = {k: v[step * share : (step + 1) * share] for k, v in stream.items()}
            training.step(wrapped, optimizer, batch, step, NUM_STEPS)
        finished[name] = module.cpu().state_dict()
    if rank == 0:
        buffer = io.BytesIO()
        torch.save({"started": started, "finished": finished}, buffer)
        Path(output).write_bytes(buffer.getvalue())
    if num_workers > 1:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [2, 3])
def test_several_workers_reach_the_parameters_of_one(
    num_workers: int,
    tmp_path: Path,
    tiny_config: PipelineConfig,
    prepare_shards: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inject_tiny_networks(monkeypatch)
    shard_rows, names = prepare_shards(tmp_path)
    trainings = make_trainings(with_sgd(tiny_config), tmp_path, shard_rows, names)
    if num_workers > 2:
        # Unequal shares of a batch concern all losses alike: the first trainings show them.
        trainings = {name: t for name, t in trainings.items() if name not in (*PEERS, "GAIN")}
    assert_agree(trainings, num_workers, str(tmp_path))


def train_mixed(rank: int, *arguments: Any) -> None:
    """Trains as on a CPU that multiplies bfloat16. Others compute the same more slowly."""
    torch.cpu.get_capabilities = lambda: {"avx512_bf16": True}
    train_all(rank, *arguments)


@pytest.mark.slow
def test_two_workers_move_the_parameters_as_one_does_in_mixed_precision(
    tmp_path: Path,
    tiny_config: PipelineConfig,
    prepare_shards: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rounding makes them differ, so that they cannot be compared one by one."""
    inject_tiny_networks(monkeypatch)
    shard_rows, names = prepare_shards(tmp_path)
    trainings = make_trainings(with_sgd(tiny_config), tmp_path, shard_rows, names)
    mixed = {
        name: replace(trainings[name], config=replace(trainings[name].config, amp=True))
        for name in ("encoder", "activation")
    }
    found = []
    for num_workers in (1, 2):
        output = f"{tmp_path}/{num_workers}.pt"
        spawn(train_mixed, (num_workers, str(tmp_path), mixed, output), nprocs=num_workers)
        found.append(torch.load(output, weights_only=True))
    for name in mixed:
        one, two = (moved(each["started"][name], each["finished"][name]) for each in found)
        assert torch.isfinite(two).all()
        assert torch.cosine_similarity(one, two, dim=0) > 0.9
    kept = found[0]["finished"]["activation"]
    assert {v.dtype for n, v in kept.items() if n == "encoder.head.weight"} == {torch.bfloat16}


def moved(started: dict[str, torch.Tensor], finished: dict[str, torch.Tensor]) -> torch.Tensor:
    """How far a training moved the parameters and statistics of its network."""
    trained = [name for name in started if name.startswith("network.")]
    return torch.cat([(finished[n].float() - started[n].float()).flatten() for n in trained])


@pytest.mark.gpu
def test_two_workers_on_one_gpu_reach_the_parameters_of_one(
    tmp_path: Path,
    tiny_config: PipelineConfig,
    prepare_shards: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    inject_tiny_networks(monkeypatch)
    shard_rows, names = prepare_shards(tmp_path)
    trainings = make_trainings(with_sgd(tiny_config), tmp_path, shard_rows, names)
    # gloo, because NCCL refuses two workers on one GPU.
    assert_agree(trainings, 2, str(tmp_path), "cuda")


def with_sgd(config: PipelineConfig) -> PipelineConfig:
    """AdamW divides by the root of tiny gradients, which turns rounding into visible steps.

    bfloat16 rounds more than the tolerance.
    """
    sgd: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.01, "epochs": 2, "amp": False}
    config = replace(
        config,
        **{
            part: replace(
                getattr(config, part), training=replace(getattr(config, part).training, **sgd)
            )
            for part in ("encoder", "classifier", "activation", "segmentation", *PEERS)
        },
    )
    given = {n: replace(getattr(config, n), weights="given") for n in ("clims", "mctformer")}
    return replace(config, **given)


def assert_agree(
    trainings: dict[str, Training], num_workers: int, root: str, device: str = "cpu"
) -> None:
    train_all(0, 1, root, trainings, f"{root}/one.pt", device)
    shared = (num_workers, root, trainings, f"{root}/many.pt", device)
    spawn(train_all, shared, nprocs=num_workers)
    one, many = (torch.load(f"{root}/{n}.pt", weights_only=True) for n in ("one", "many"))
    for name in trainings:
        largest = 0.0
        for key, value in one["finished"][name].items():
            found, before = many["finished"][name][key].float(), one["started"][name][key].float()
            torch.testing.assert_close(
                found, value.float(), rtol=1e-3, atol=TOLERANCE, msg=f"{name} {key}"
            )
            largest = max(largest, float((value.float() - before).abs().max()))
        assert largest > 10 * TOLERANCE, f"{name} has not moved"
