"""Digests that show whether a data set, or a part of it, has changed."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from slams_ray import artifacts, storage
from slams_ray.config import DataConfig
from slams_ray.data import coco, voc
from slams_ray.data.schema import Item
from slams_ray.data.source import roles, score_list

FileStates = Mapping[str, tuple[int, int]]
"""Path below the root of the data set -> size in bytes and modification time in nanoseconds."""


def file_states(config: DataConfig, root: str) -> FileStates:
    """Returns the state of every image and mask file, with one listing per directory."""
    states = {}
    for directory in _image_directories(config):
        for path, *state in storage.list_states(storage.join(root, directory)):
            states[storage.join(directory, path)] = (state[0], state[1])
    return states


def digest(config: DataConfig, root: str, states: FileStates) -> str:
    """SHA-256 of the lists and annotation files, and of the states of images and masks."""
    total = hashlib.sha256()
    for setting, path in _defining_files(config, root).items():
        if storage.exists(path):
            total.update(f"{setting}\n".encode())
            total.update(hashlib.sha256(storage.read_bytes(path)).digest())
    total.update(json.dumps(sorted(states.items())).encode())
    return total.hexdigest()


def items_digest(items: Sequence[Item], root: str, states: FileStates) -> str:
    """32 hexadecimal digits that change when an item, its image or its mask changes."""
    described = []
    for item in items:
        mask_path = getattr(item.read_mask, "path", None)
        files = [states.get(_below(root, path)) for path in (item.image_path, mask_path) if path]
        annotation = repr(item.read_mask).replace(root, "")
        described.append((item.image_id, item.image_labels, files, annotation))
    return artifacts.digest(described)


def _below(root: str, path: str) -> str:
    return path.removeprefix(root).lstrip("/")


def _defining_files(config: DataConfig, root: str) -> dict[str, str]:
    """Setting or role -> file that lists images or annotates them."""
    lists = {
        "train_list": config.train_list,
        "val_list": config.val_list,
        "score_list": score_list(config, root),
    }
    files = {setting: path for setting, path in lists.items() if path}
    if config.format in ("coco", "synthetic"):
        path_of = coco.annotation_path
    elif config.format == "voc":
        path_of = voc.list_file
    else:
        return files | {n: storage.join(root, n) for n in ("labels.csv", "classes.txt")}
    return files | {role: path_of(root, name) for role, name in roles(config).items()}


def _image_directories(config: DataConfig) -> tuple[str, ...]:
    if config.format in ("coco", "synthetic"):
        return tuple(roles(config).values())
    if config.format == "voc":
        return ("JPEGImages", config.voc_mask_dir, "Annotations")
    return ("images", "masks")
