"""Common interface of all loaders."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from slams_ray import storage
from slams_ray.config import DataConfig
from slams_ray.data import coco, folder, synthetic, voc
from slams_ray.data.image import ImageLimits
from slams_ray.data.lists import read_id_list
from slams_ray.data.schema import Item, Split
from slams_ray.errors import DataError

TRAIN, VAL = "train", "val"
_SHUFFLE_SEED = 0


def roles(config: DataConfig) -> dict[str, str]:
    """Role (train, val) -> name of its split."""
    return {TRAIN: config.train_split} | ({VAL: config.val_split} if config.val_split else {})


def limits(config: DataConfig) -> ImageLimits:
    """Size limits of the data set's images and masks."""
    return ImageLimits(max_bytes=config.max_image_bytes, max_pixels=config.max_image_pixels)


def generate(config: DataConfig, workspace: str) -> str:
    """Returns the root of the data set; generates the built-in set if it is missing."""
    if config.format != "synthetic":
        return storage.absolute(config.root)
    sizes = {
        config.train_split: config.synthetic_train_images,
        config.val_split or VAL: config.synthetic_val_images,
    }
    name = "-".join(str(part) for part in (*sizes.values(), "seed", config.synthetic_seed))
    root = storage.join(workspace, "synthetic", name)
    # The annotation file of a split is written last, so its presence means the split is complete.
    if not all(storage.exists(coco.annotation_path(root, split)) for split in sizes):
        synthetic.generate_synthetic(root, sizes, config.synthetic_seed)
    return root


def load_split(config: DataConfig, root: str, role: str) -> Split:
    """Loads and checks the split of a role.

    Raises:
        DataError: the split is empty, two images have one id, or the loader finds an error.
    """
    name = roles(config)[role]
    list_path = config.train_list if role == TRAIN else config.val_list
    keep = config.unlabelled == "keep"
    if config.format in ("coco", "synthetic"):
        split = coco.load_coco(
            root,
            name,
            classes=config.classes,
            crowd=config.crowd,
            keep_unlabelled=keep,
            list_path=list_path,
        )
    elif config.format == "voc":
        split = voc.load_voc(
            root,
            name,
            classes=config.classes,
            mask_dir=config.voc_mask_dir,
            labels_from=config.voc_labels_from,
            keep_unlabelled=keep,
            list_path=list_path,
            limits=limits(config),
        )
    else:
        split = folder.load_folder(
            root,
            name,
            classes=config.classes,
            keep_unlabelled=keep,
            list_path=list_path,
            limits=limits(config),
        )
    if split.bad and config.on_bad_image == "fail":
        image_id, reason = split.bad[0]
        raise DataError(f"{reason} (image {image_id}). Repair it, or set data.on_bad_image to skip")
    _check_items(split, name)
    return _keep_scored_masks(config, root, split) if role == TRAIN else split


def _keep_scored_masks(config: DataConfig, root: str, split: Split) -> Split:
    """Drops the masks of training images that data.score_list does not name."""
    path = score_list(config, root)
    if path is None:
        return split
    scored = set(read_id_list(path))
    if not scored & {item.image_id for item in split.items}:
        raise DataError(f"data.score_list {path} names no image of split {config.train_split}")
    items = tuple(
        item if item.image_id in scored else replace(item, read_mask=None) for item in split.items
    )
    return replace(split, items=items)


def score_list(config: DataConfig, root: str) -> str | None:
    """Path of the list of training images whose masks may be used for scores; None allows all."""
    name = config.score_list
    if name is not None and config.format == "voc" and not name.endswith(".txt"):
        return voc.list_file(root, name)
    return name


def _check_items(split: Split, name: str) -> None:
    if not split.items:
        raise DataError(
            f"split {name} is empty: {split.num_dropped} images have none of the classes and "
            f"{len(split.bad)} are bad. Check data.classes and the split's list"
        )
    seen: set[str] = set()
    for item in split.items:
        if item.image_id in seen:
            raise DataError(
                f"split {name} has two images with the id {item.image_id!r}: rename one"
            )
        seen.add(item.image_id)


def shuffle(items: Sequence[Item]) -> tuple[Item, ...]:
    """Returns the items in a random order that is always the same.

    Data sets are sorted by class, film or day, and a shard holds neighbours of the list. Without
    shuffling, similar images would stay in the same shard and be trained on together.
    """
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(items))
    return tuple(items[index] for index in order)
