"""Loader of the MS COCO layout: `annotations/instances_<split>.json` and a directory per split."""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from slams_ray import storage
from slams_ray.data.coco_masks import CocoMask
from slams_ray.data.lists import read_id_list
from slams_ray.data.names import check_file_name, check_relative_path
from slams_ray.data.schema import (
    BACKGROUND,
    DatasetDescription,
    Item,
    Split,
    check_class_names,
    choose_classes,
    drop_unlabelled,
    voc_palette,
)
from slams_ray.errors import DataError
from slams_ray.metrics import IGNORE_INDEX


def annotation_path(root: str, split: str) -> str:
    """Path of the annotation file of a split."""
    return storage.join(root, "annotations", f"instances_{split}.json")


def load_coco(
    root: str,
    split: str,
    *,
    classes: tuple[str, ...] = (),
    crowd: str = "background",
    keep_unlabelled: bool = False,
    list_path: str | None = None,
) -> Split:
    """Loads a split; category ids 1..90 with gaps become dense indices in ascending order.

    Labels and masks come from the same annotations: the labels of an image are the classes of its
    instances without crowd regions.

    Args:
        classes: subset of category names; pixels of other categories become 255.
        list_path: text file with one image id or file stem per line; None takes every image of the
            annotation file. Bad images that are not on the list are left out of `Split.bad`.

    Raises:
        DataError: the annotation file is missing or malformed, has two categories of one name or id
            or one called background, or the list names an unknown id.
    """
    path = annotation_path(root, split)
    content = _read_annotations(path)
    description = _describe(content["categories"], classes, path)
    index_of = dict(zip(description.category_ids, range(len(description.class_names)), strict=True))
    known_categories = {c["id"] for c in content["categories"]}
    images = _by_id(content["images"], path)
    per_image: dict[int, list[tuple[Any, bool, int]]] = {image_id: [] for image_id in images}
    bad: list[tuple[str, str]] = []
    for annotation in content["annotations"]:
        reason = _reject(annotation, images, known_categories, path)
        if reason:
            bad.append((str(annotation.get("image_id", "?")), reason))
            continue
        per_image[annotation["image_id"]].append(
            (
                annotation["segmentation"],
                bool(annotation.get("iscrowd", 0)),
                index_of.get(annotation["category_id"], IGNORE_INDEX),
            )
        )
    contradicted = {image_id for image_id, _ in bad}
    sound = {key: image for key, image in images.items() if str(key) not in contradicted}
    items, rejected = _make_items(root, split, sound, per_image, crowd, path)
    bad += rejected
    if list_path is not None:
        items, bad = _select(items, bad, images, list_path)
    kept, num_dropped = drop_unlabelled(items, keep_unlabelled)
    return Split(description=description, items=kept, bad=tuple(bad), num_dropped=num_dropped)


def _read_annotations(path: str) -> dict[str, Any]:
    if not storage.exists(path):
        raise DataError(
            f"{path} is missing: data.root must contain annotations/instances_<split>.json, check "
            "data.root and the split names"
        )
    try:
        content = json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON and may be truncated: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is a {type(content).__name__}: it must be an instances file")
    parts = ("annotations", "categories", "images")
    missing = [part for part in parts if not isinstance(content.get(part), list)]
    if missing:
        raise DataError(
            f"{path} lacks a list of {' and of '.join(missing)}: it must be an instances file"
        )
    return content


def _by_id(images: list[dict[str, Any]], path: str) -> dict[int, dict[str, Any]]:
    """Returns image id -> image."""
    found: dict[Any, dict[str, Any]] = {}
    for image in images:
        number = image.get("id") if isinstance(image, dict) else None
        if not isinstance(number, int | float | str):
            raise DataError(
                f"{path} has the image {image!r}, whose id is no number and no text: give it one"
            )
        if number in found:
            names = [entry.get("file_name") for entry in (found[number], image)]
            raise DataError(
                f"{path} gives {names[0]!r} and {names[1]!r} the image id {number}: give every "
                "image an id of its own, also in files that were joined"
            )
        found[number] = image
    return found


def _describe(
    categories: list[dict[str, Any]], classes: tuple[str, ...], path: str
) -> DatasetDescription:
    if any(not {"id", "name"} <= category.keys() for category in categories):
        raise DataError(f"{path} has a category without id or name: it must be an instances file")
    if len({isinstance(category["id"], str) for category in categories}) > 1:
        raise DataError(f"{path} has categories whose ids are numbers and texts: use numbers alone")
    ordered = sorted(categories, key=lambda category: category["id"])
    available = [c["name"] for c in ordered]
    _check_category_ids(ordered, path)
    names = choose_classes(available, classes, path)
    check_class_names([name for name in available if name in names], path)
    ids = {c["name"]: c["id"] for c in ordered}
    return DatasetDescription(
        name="coco",
        class_names=(BACKGROUND, *names),
        category_ids=(0, *(ids[name] for name in names)),
        palette=voc_palette(len(names) + 1),
    )


def _check_category_ids(categories: list[dict[str, Any]], path: str) -> None:
    for first, second in pairwise(categories):
        if first["id"] == second["id"]:
            raise DataError(
                f"{path} gives {first['name']!r} and {second['name']!r} the category id "
                f"{first['id']}: give every category an id of its own"
            )


def _reject(
    annotation: Mapping[str, Any], images: Mapping[int, Any], categories: set[int], path: str
) -> str | None:
    number = annotation.get("id", "without id")
    if not isinstance(annotation.get("image_id"), int | float | str):
        return f"annotation {number} in {path} has no image_id that is a number or a text"
    if annotation["image_id"] not in images:
        found = f"is for image {annotation.get('image_id')}, which the file does not list"
        return f"annotation {number} in {path} {found}"
    if annotation.get("category_id") not in categories:
        found = f"has category_id {annotation.get('category_id')}, which the file does not define"
        return f"annotation {number} in {path} {found}"
    if not annotation.get("segmentation"):
        return f"annotation {number} in {path} has no segmentation"
    return None


def _make_items(
    root: str,
    split: str,
    images: Mapping[int, dict[str, Any]],
    per_image: Mapping[int, list[tuple[Any, bool, int]]],
    crowd: str,
    path: str,
) -> tuple[list[Item], list[tuple[str, str]]]:
    items, rejected = [], []
    for image_id, image in images.items():
        missing = [key for key in ("file_name", "height", "width") if key not in image]
        if missing:
            reason = f"image {image_id} in {path} has no {', '.join(missing)}"
            rejected.append((str(image_id), reason))
            continue
        file_name = str(image["file_name"])
        present = {
            i for _, is_crowd, i in per_image[image_id] if not is_crowd and i != IGNORE_INDEX
        }
        try:
            check_relative_path(file_name, path)
            stem = _stem(file_name)
            check_file_name(stem, path)
            item = Item(
                image_id=stem,
                image_path=storage.join(root, split, file_name),
                image_labels=tuple(sorted(present)),
                read_mask=CocoMask(
                    annotations=tuple(per_image[image_id]),
                    size=(image["height"], image["width"]),
                    crowd=crowd,
                    source=file_name,
                ),
            )
        except DataError as error:
            rejected.append((str(image_id), str(error)))
        else:
            items.append(item)
    return items, rejected


def _select(
    items: list[Item],
    bad: list[tuple[str, str]],
    images: Mapping[int, dict[str, Any]],
    list_path: str,
) -> tuple[list[Item], list[tuple[str, str]]]:
    """Returns the items that a list names, and those (image id, reason) of `bad` that it names."""
    by_stem = {item.image_id: item for item in items}
    by_number = {_number(item.image_id): item for item in items}
    bad_ids = {image_id for image_id, _ in bad}
    # An entry without a file name can only be named by its id.
    bad_stems = {
        _stem(str(image.get("file_name", image_id))): str(image_id)
        for image_id, image in images.items()
        if str(image_id) in bad_ids
    }
    bad_numbers = {_number(stem): image_id for stem, image_id in bad_stems.items()}
    chosen, chosen_bad = [], set()
    for name in read_id_list(list_path):
        number = name.lstrip("0") if name.isdigit() else None
        item = by_stem.get(name) if number is None else by_number.get(number)
        bad_id = bad_stems.get(name) if number is None else bad_numbers.get(number)
        if item is not None:
            chosen.append(item)
        elif bad_id is not None:
            chosen_bad.add(bad_id)
        else:
            raise DataError(f"{list_path} names {name!r}, which the annotation file does not list")
    return chosen, [(image_id, reason) for image_id, reason in bad if image_id in chosen_bad]


def _stem(file_name: str) -> str:
    return file_name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _number(stem: str) -> str:
    """Returns the number in a file stem: published lists use 9 for COCO_train2014_000000000009."""
    return stem.rsplit("_", 1)[-1].lstrip("0")
