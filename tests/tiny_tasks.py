"""Encoded rows, batches, and tasks on the tiny network."""

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slams_ray.config import (
    ActivationConfig,
    BackboneConfig,
    ClassifierConfig,
    DataConfig,
    EncoderConfig,
    LossConfig,
    SegmentationConfig,
    TrainingConfig,
)
from slams_ray.config.pipeline import GIVEN_WEIGHTS
from slams_ray.data.image import encode_mask
from slams_ray.data.shard_work import PrepareMapper
from slams_ray.data.source import TRAIN, generate, load_split
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.vision_transformer import VitSizes
from slams_ray.recipes.smoke import smoke
from slams_ray.refinement.walk.training import AffinityTask
from slams_ray.segmentation.training import SegmentationTask
from slams_ray.storage import write_table
from slams_ray.systems.cam import ClassifierTask
from slams_ray.systems.registry import SYSTEMS
from slams_ray.systems.slams.activation import ActivationTask
from slams_ray.systems.slams.encoder import EncoderTask
from slams_ray.systems.system import NetworkTraining
from slams_ray.training.sampling import ROWS_PER_GROUP
from slams_ray.training.task import Task

TRAINED_SYSTEMS = sorted(
    name
    for name, system in SYSTEMS.items()
    if any(isinstance(made, NetworkTraining) for made in system.trainings(smoke()))
)
"""Systems whose maps come from a trained network."""
_OF_PIPELINE = ("encoder", "segmentation", "affinity")
TRAININGS = (*_OF_PIPELINE, *TRAINED_SYSTEMS)
"""All trainings, for `make_any_task`."""
CLASS_NAMES = ("background", "red", "green", "blue")
# Without mixed precision, so that numbers do not depend on the kind of CPU.
TRAINING = TrainingConfig(
    batch_size=4,
    crop_px=32,
    long_side_px=(28, 40),
    optimizer="adamw",
    learning_rate=3e-3,
    amp=False,
)
Row = dict[str, Any]
LABELS: tuple[tuple[int, ...], ...] = ((1,), (2, 3), (), (1, 2, 3))


def make_row(number: int, image_labels: Sequence[int]) -> Row:
    """A JPEG of 36 x 30 pixels with one patch per label, and the mask of the patches."""
    rng = np.random.default_rng(number)
    image = rng.integers(90, 130, (30, 36, 3)).astype(np.uint8)
    mask = np.zeros((30, 36), np.uint8)
    for class_index in image_labels:
        top, left = int(rng.integers(0, 18)), 12 * (class_index - 1)
        image[top : top + 12, left : left + 12, class_index - 1] = 250
        mask[top : top + 12, left : left + 12] = class_index
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return {
        "image_id": f"image-{number}",
        "image": buffer.getvalue(),
        "height": 30,
        "width": 36,
        "image_labels": list(image_labels),
        "pseudo_label": encode_mask(mask, [(0, 0, 0)]),
    }


@pytest.fixture
def prepare_shards() -> Callable[..., tuple[list[tuple[str, int]], list[str]]]:
    """Writes shards of generated images; returns (name, rows) of each, and the class names."""
    return write_shards


def write_shards(root: Path, num_shards: int = 4) -> tuple[list[tuple[str, int]], list[str]]:
    config = DataConfig(format="synthetic", synthetic_train_images=16, synthetic_val_images=8)
    split = load_split(config, generate(config, str(root)), TRAIN)
    mapper = PrepareMapper(split.description, "fail")
    shard_rows = []
    for number in range(num_shards):
        table, summary = mapper({}, split.items[number::num_shards])
        labelled = table.append_column("pseudo_label", table.column("mask"))
        name = f"{number}.parquet"
        write_table(str(root / "shards" / name), labelled, ROWS_PER_GROUP)
        shard_rows.append((name, summary["num_rows"]))
    return shard_rows, list(split.description.class_names)


@pytest.fixture
def rows() -> list[Row]:
    """Four images with 1, 2, 0 and 3 labels."""
    return [make_row(number, labels) for number, labels in enumerate(LABELS)]


@pytest.fixture
def make_batch() -> Callable[..., dict[str, torch.Tensor]]:
    def make(task: Task, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        samples = [
            task.sampler.sample(row, np.random.default_rng(i), rows[i - 2])
            for i, row in enumerate(rows)
        ]
        return {
            name: torch.from_numpy(np.stack([sample[name] for sample in samples]))
            for name in samples[0]
        }

    return make


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """kind, and whether BatchNorm is frozen, to a task with seeded networks."""

    def make(
        kind: str,
        frozen: bool = False,
        losses: LossConfig | None = None,
        encoder_input_px: int = 24,
        **activation: Any,
    ) -> Task:
        torch.manual_seed(0)
        backbone = BackboneConfig(name="tiny_resnet", output_stride=8, freeze_batch_norm=frozen)
        encoder = EncoderTask(
            EncoderConfig(backbone=backbone, training=TRAINING, embedding_dim=8), CLASS_NAMES
        )
        classifier = ClassifierTask(
            ClassifierConfig(backbone=backbone, training=TRAINING), CLASS_NAMES
        )
        if kind == "encoder":
            return encoder
        if kind == "classifier":
            return classifier
        if kind == "segmentation":
            config = SegmentationConfig(
                backbone=backbone, training=replace(TRAINING, learning_rate=1e-3)
            )
            return SegmentationTask(config, CLASS_NAMES)
        return ActivationTask(
            ActivationConfig(
                training=TRAINING,
                losses=losses or LossConfig(foreground=1.0),
                encoder_input_px=encoder_input_px,
                **activation,
            ),
            backbone,
            CLASS_NAMES,
            *(
                dump_network(task.build().network, task.architecture, CLASS_NAMES)
                for task in (encoder, classifier)
            ),
        )

    return make


class TinyImageText(nn.Module):
    """A random network with an embedding for images, and one for texts."""

    image_px = 24

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.towers = nn.Conv2d(3, 8, 8, stride=8)
        for parameter in self.towers.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def image_embeddings(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.towers(images).relu().mean(dim=(2, 3)) + 0.01, dim=-1)

    def text_embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        seeds = [zlib.crc32(text.encode()) for text in texts]
        rows = [torch.rand(8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return nn.functional.normalize(torch.stack(rows), dim=-1)


def load_tiny_image_text(path: str, system: str) -> TinyImageText:
    return TinyImageText()


TINY_VIT = VitSizes(width=16, depth=4, patch_px=8, image_px=32)


class TinyAttention(nn.Module):
    """Two heads, with the names of timm's attention."""

    num_heads = 2
    scale = 8**-0.5

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        heads = (t.unflatten(2, (2, -1)).transpose(1, 2) for t in self.qkv(tokens).chunk(3, dim=2))
        mixed = nn.functional.scaled_dot_product_attention(*heads)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class TinyVit(nn.Module):
    """A vision transformer whose modules have the names of timm's."""

    def __init__(self, sizes: VitSizes) -> None:
        super().__init__()
        width, patch = sizes.width, sizes.patch_px
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, stride=patch)
        self.pos_embed = nn.Parameter(torch.randn(1, (sizes.image_px // patch) ** 2, width) / 5)
        self.blocks = nn.ModuleList(TinyBlock(width) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(width)


class TinyBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = TinyAttention(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.ls1, self.ls2 = nn.Identity(), nn.Identity()


def read_tiny_vit(path: str) -> tuple[VitSizes, dict[str, torch.Tensor]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        state = TinyVit(TINY_VIT).state_dict()
        token, position = torch.randn(1, 1, 16), torch.randn(1, 1, 16)
    positions = torch.cat([position, state["pos_embed"]], dim=1)
    return TINY_VIT, state | {"cls_token": token, "pos_embed": positions}


def inject_tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks of the tests replace those that optional libraries build."""
    monkeypatch.setattr("slams_ray.systems.clims.load_clip", load_tiny_image_text)
    monkeypatch.setattr("slams_ray.systems.mctformer.read_vit", read_tiny_vit)
    monkeypatch.setattr("slams_ray.systems.mctformer.build_vit", TinyVit)
    monkeypatch.setattr("slams_ray.networks.token_network.build_vit", TinyVit)


@pytest.fixture
def make_system_task(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    """System, whether BatchNorm is frozen, and settings of the system, to the task of its maps.

    The networks it builds on come with it.
    """
    inject_tiny_networks(monkeypatch)

    def make(name: str, frozen: bool = False, **settings: Any) -> Task:
        torch.manual_seed(0)
        if name in GIVEN_WEIGHTS:
            settings = {"weights": "given"} | settings
        config = smoke()
        for part in ("encoder", "classifier", "segmentation") if frozen else ():
            own = getattr(config, part)
            own = replace(own, backbone=replace(own.backbone, freeze_batch_norm=True))
            config = replace(config, **{part: own})
        if settings:
            config = replace(config, **{name: replace(getattr(config, name), **settings)})
        config = replace(config, system=name, baselines=())
        checkpoints: dict[str, bytes] = {}
        for training in SYSTEMS[name].trainings(config):
            assert isinstance(training, NetworkTraining)
            task = training.make_task(CLASS_NAMES, checkpoints)
            network = task.build().exported
            checkpoints[training.stage] = dump_network(network, task.architecture, CLASS_NAMES)
        return task

    return make


@pytest.fixture
def make_any_task(
    make_task: Callable[..., Task], make_system_task: Callable[..., Task]
) -> Callable[[str], Task]:
    """One of `TRAININGS` or "GAIN", and whether BatchNorm is frozen, to its task.

    Networks are seeded. GAIN is OC-CSE with `occse.judge` self.
    """

    def make(kind: str, frozen: bool = False) -> Task:
        if kind == "GAIN":
            return make_system_task("occse", frozen, judge="self")
        if kind == "affinity":
            backbone = BackboneConfig(name="tiny_resnet", output_stride=8)
            torch.manual_seed(0)
            return AffinityTask(TrainingConfig(crop_px=32), backbone, list(CLASS_NAMES), 3)
        make_one = make_task if kind in _OF_PIPELINE else make_system_task
        return make_one(kind, frozen)

    return make
