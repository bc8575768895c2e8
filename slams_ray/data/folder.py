"""Loader of your own photographs: a directory of images, labels.csv, and optional masks.

root/
  images/            a.jpg b.png ...
  labels.csv         image,labels[,split]      a.jpg,cat;dog,train
  masks/             optional: a.png, pixel = class index in the order of the classes, 255 = ignore
  classes.txt        optional: one class name per line; otherwise the sorted names in labels.csv
"""

import csv
import io
from collections.abc import Iterator, Mapping
from itertools import pairwise

from slams_ray import storage
from slams_ray.data.image import DEFAULT_LIMITS, ImageLimits
from slams_ray.data.lists import read_id_list, read_text
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
from slams_ray.data.voc import IndexMask, index_lookup
from slams_ray.errors import DataError

LABEL_SEPARATOR = ";"
NO_SPLIT = (None, "")
"""Values of the column split in rows that belong to every split."""


def load_folder(
    root: str,
    split: str,
    *,
    classes: tuple[str, ...] = (),
    keep_unlabelled: bool = False,
    list_path: str | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Split:
    """Loads the rows of a split; without a split column every row belongs to every split.

    Raises:
        DataError: labels.csv is missing, has a wrong column, has no row of the split, or names a
            class that classes.txt does not list.
    """
    path = storage.join(root, "labels.csv")
    rows = _read_rows(path)
    if list_path is None:
        _check_split(rows, split, path)
    available = _class_names(root, rows, path)
    names = choose_classes(available, classes, path)
    description = DatasetDescription(
        name="folder",
        class_names=(BACKGROUND, *names),
        category_ids=(0, *(1 + available.index(name) for name in names)),
        palette=voc_palette(len(names) + 1),
    )
    lookup = index_lookup(available, names)
    wanted = set(read_id_list(list_path)) if list_path else None
    unknown = (wanted or set()) - {_stem(row) for row in rows}
    if unknown:
        raise DataError(f"{list_path} names {min(unknown)!r}, which {path} does not list")
    masks = set(storage.list_names(storage.join(root, "masks")))
    items, bad = [], []
    for row in rows:
        stem = _stem(row)
        in_split = stem in wanted if wanted is not None else row.get("split") in (*NO_SPLIT, split)
        if not in_split:
            continue
        mask_path = storage.join(root, "masks", f"{stem}.png")
        mask = IndexMask(
            path=mask_path, lookup=lookup, num_indices=len(available) + 1, limits=limits
        )
        try:
            check_relative_path(row["image"], path)
            check_file_name(stem, path)
            items.append(
                Item(
                    image_id=stem,
                    image_path=storage.join(root, "images", row["image"]),
                    image_labels=tuple(
                        sorted({1 + names.index(n) for n in _labels(row) if n in names})
                    ),
                    read_mask=mask if f"{stem}.png" in masks else None,
                )
            )
        except DataError as error:
            bad.append((stem, str(error)))
    kept, num_dropped = drop_unlabelled(items, keep_unlabelled)
    return Split(
        description=description,
        items=kept,
        bad=tuple(bad),
        num_dropped=num_dropped,
        remarks=tuple(_remarks(root, rows, available, sorted(masks), path)),
    )


def _read_rows(path: str) -> list[dict[str, str]]:
    if not storage.exists(path):
        raise DataError(f"{path} is missing: it must have the columns image and labels")
    # With newline None, line ends of all systems are read, also those of an old Mac.
    reader = csv.DictReader(io.StringIO(read_text(path), newline=None), skipinitialspace=True)
    try:
        return _checked_rows(reader, path)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}, is not CSV: {error}. Does a quote lack its end?"
        ) from error


def _checked_rows(reader: "csv.DictReader[str]", path: str) -> list[dict[str, str]]:
    columns = set(reader.fieldnames or [])
    unknown, missing = columns - {"image", "labels", "split"}, {"image", "labels"} - columns
    if unknown or missing:
        raise DataError(
            f"{path} has the columns {', '.join(sorted(columns))}; expected image, labels and "
            "optionally split"
        )
    rows = []
    for row in reader:
        if not row["image"] or row["labels"] is None or None in row:
            raise DataError(
                f"{path}, line {reader.line_num}: expected image,labels with several labels "
                f"separated by {LABEL_SEPARATOR!r}"
            )
        rows.append({column: value and value.strip() for column, value in row.items()})
    if not rows:
        raise DataError(f"{path} lists no image: add a line image,labels for each image")
    return rows


def _check_split(rows: list[dict[str, str]], split: str, path: str) -> None:
    found = {row.get("split") for row in rows}
    if not found & {*NO_SPLIT, split}:
        others = ", ".join(sorted(map(str, found)))
        raise DataError(
            f"{path} has no row whose split is {split!r}, only {others}: "
            f"add rows of {split!r}, or leave the column out. Without any to score the network "
            "on, set data.val_split to None"
        )


def _class_names(root: str, rows: list[dict[str, str]], path: str) -> list[str]:
    used = {name for row in rows for name in _labels(row)}
    class_list = storage.join(root, "classes.txt")
    names, source = sorted(used), path
    if storage.exists(class_list):
        names = [line.strip() for line in read_text(class_list).splitlines() if line.strip()]
        source = class_list
    unknown = sorted(used - set(names))
    if unknown:
        raise DataError(f"{path} uses the label {unknown[0]!r}, which {class_list} does not list")
    check_class_names(names, source)
    return names


def _remarks(
    root: str, rows: list[dict[str, str]], classes: list[str], masks: list[str], path: str
) -> Iterator[str]:
    """Yields what is likely to be a mistake in labels.csv, images/ or masks/."""
    for name in classes:
        if "," in name:
            yield f"{path} has the label {name!r}: {LABEL_SEPARATOR!r} separates several labels"
    splits = {row["split"] for row in rows if row.get("split")}
    for kind, names in (("labels", classes), ("splits", splits)):
        for first, second in pairwise(sorted(names, key=lambda name: (name.lower(), name))):
            if first.lower() == second.lower():
                yield f"{path} has the {kind} {first!r} and {second!r}, which differ in case"
    listed = {row["image"] for row in rows}
    files = storage.list_files(storage.join(root, "images"))
    others = [name for name in files if name not in listed and not _is_hidden(name)]
    if others:
        yield f"{path} does not list {len(others)} of the files in images/, such as {others[0]}"
    of_images = {f"{_stem(row)}.png" for row in rows}
    unused = [name for name in masks if name not in of_images and not name.startswith(".")]
    if unused:
        yield (
            f"masks/ has {len(unused)} files for no image, such as {unused[0]}: the mask of "
            "cat.jpg is cat.png"
        )


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _stem(row: Mapping[str, str]) -> str:
    return row["image"].rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _labels(row: Mapping[str, str]) -> list[str]:
    return [name.strip() for name in row["labels"].split(LABEL_SEPARATOR) if name.strip()]
