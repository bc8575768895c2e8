"""Image shards to measure on: photographs of a VOC tree, or the built-in set."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from slams_ray import storage
from slams_ray.config import DataConfig
from slams_ray.data.schema import DatasetDescription
from slams_ray.data.shard_work import PrepareMapper
from slams_ray.data.source import TRAIN, generate, load_split
from slams_ray.training.sampling import ROWS_PER_GROUP

FEWEST_GENERATED = 8


@dataclass(frozen=True, kw_only=True)
class Shards:
    """Shards with the same number of images each.

    Attributes:
        root: directory whose images/train holds the shards, as in the output of prepare.
        images_per_shard: number of rows of each shard.
    """

    root: str
    names: tuple[str, ...]
    images_per_shard: int
    description: DatasetDescription

    @property
    def directory(self) -> str:
        return storage.join(self.root, "images", TRAIN)

    @property
    def paths(self) -> list[str]:
        return [storage.join(self.directory, name) for name in self.names]


@contextmanager
def scratch(workspace: str) -> Iterator[str]:
    """Creates a directory in the workspace, and removes it at the end."""
    parent = Path(storage.absolute(workspace))
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="scratch-") as directory:
        yield directory


def data_config(
    voc_dir: str | None,
    num_images: int,
    max_side_px: int | None,
    classes: tuple[str, ...] = (),
) -> DataConfig:
    """Returns the settings of a VOC tree, or of generated images.

    Args:
        num_images: number of generated images.
        classes: classes of the VOC tree to use; empty means all.
    """
    if voc_dir is None:
        return DataConfig(
            format="synthetic",
            synthetic_train_images=max(num_images, FEWEST_GENERATED),
            synthetic_val_images=FEWEST_GENERATED,
        )
    return DataConfig(
        format="voc",
        root=storage.absolute(voc_dir),
        voc_labels_from="masks",
        max_side_px=max_side_px,
        classes=classes,
    )


def write_shards(
    config: DataConfig, workspace: str, num_shards: int, images_per_shard: int
) -> Shards:
    """Writes shards like those of prepare, with the masks as a further column pseudo_label.

    Images are evenly spaced in the split. They repeat if there are too few.
    """
    split = load_split(config, generate(config, workspace), TRAIN)
    mapper = PrepareMapper(split.description, "fail", max_side_px=config.max_side_px)
    num_images = num_shards * images_per_shard
    stride = max(1, len(split.items) // num_images)
    chosen = [split.items[i * stride % len(split.items)] for i in range(num_images)]
    names = tuple(f"{number:06d}.parquet" for number in range(num_shards))
    shards = Shards(
        root=workspace,
        names=names,
        images_per_shard=images_per_shard,
        description=split.description,
    )
    for path, start in zip(shards.paths, range(0, num_images, images_per_shard), strict=True):
        table, _ = mapper({}, chosen[start : start + images_per_shard])
        labelled = table.append_column(pa.field("pseudo_label", pa.binary()), table.column("mask"))
        storage.write_table(path, labelled, ROWS_PER_GROUP)
    return shards
