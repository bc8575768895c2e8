"""Exports the stored labels of a finished workspace, or its network; computes no label."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from slams_ray import storage
from slams_ray.artifacts import Record, read_record
from slams_ray.data.image import decode_mask, image_suffix
from slams_ray.data.names import check_file_name
from slams_ray.data.source import TRAIN
from slams_ray.errors import ArtifactError, ConfigError
from slams_ray.exports.coco import CocoWriter
from slams_ray.exports.labelled_image import (
    CLASS_NAMES_NAME,
    LabelledImage,
    MakeWriter,
    write_class_names,
)
from slams_ray.exports.masks import MaskWriter
from slams_ray.exports.voc import VocWriter
from slams_ray.model.onnx import export_onnx
from slams_ray.model.source import SUMMARY_NAME, stage_outputs
from slams_ray.runtime.progress import Progress
from slams_ray.stages import evaluate, import_files, prepare, refine
from slams_ray.stages.export_output import check_free, note_export
from slams_ray.stages.prepare import PreparedData, open_prepared
from slams_ray.stages.stage import Result

logger = logging.getLogger(__name__)

WRITERS: dict[str, type[VocWriter | MaskWriter | CocoWriter]] = {
    "voc": VocWriter,
    "masks": MaskWriter,
    "coco": CocoWriter,
}
IMAGES_NAME = "JPEGImages"
ONNX_NAME = "model.onnx"
THREADS = 8
"""Writing to an object store is mostly waiting."""


@dataclass(frozen=True, kw_only=True)
class StoredLabels:
    """Label shards of a workspace.

    Attributes:
        role: split of the labels.
        directory: directory of the label shards, which have the names of the image shards.
        column: column with the encoded labels.
    """

    data: PreparedData
    role: str
    directory: str
    column: str


def run(
    workspace: str,
    output_format: str,
    output: str,
    *,
    labels: str,
    images: bool,
    regions: str = "classes",
) -> int:
    """Writes the labels of every image, and class_names.txt.

    Args:
        output_format: key of `WRITERS`.
        labels: "pseudo" for the pseudo labels of the train split; "predictions" for the
            predictions of the scored split.
        images: whether the images are written too, with their stored bytes.
        regions: annotations of the format coco: "classes", one for each class of an image, or
            "connected", one for each connected region.

    Returns:
        number of images.

    Raises:
        ArtifactError: the workspace has no such labels.
        ConfigError: the output is the workspace, or has files that no export wrote and this one
            would replace; or the format has no regions.
    """
    if storage.absolute(workspace) == storage.absolute(output):
        raise ConfigError(f"output is the workspace {workspace}: name another directory")
    kind = WRITERS[output_format]
    make_writer: MakeWriter = kind
    if regions == "connected":
        if output_format != "coco":
            raise ConfigError(f"{output_format} has no regions: leave --regions out, or take coco")
        make_writer = partial(CocoWriter, connected=True)
    stored = find_labels(workspace, labels)
    writer = make_writer(output, stored.data.description)
    names = [*kind.NAMES, CLASS_NAMES_NAME, *([IMAGES_NAME] if images else [])]
    check_free(output, names)
    note_export(output, names)
    num_images = stored.data.num_images(stored.role)
    progress = Progress("export", num_images, "images")

    def write(row: dict[str, Any]) -> None:
        image_id, data = row["image_id"], row["image"]
        # A manipulated shard must not write outside the output.
        check_file_name(image_id, "label shard")
        file_name = f"{image_id}.{image_suffix(data)}"
        found = decode_mask(row[stored.column], image_id)
        writer.write(LabelledImage(image_id=image_id, file_name=file_name, labels=found))
        if images:
            storage.write_bytes(storage.join(output, IMAGES_NAME, file_name), data)

    num_written = 0
    with ThreadPoolExecutor(THREADS) as threads:
        for rows in _shards(stored):
            num_written += len(list(threads.map(write, rows)))
            progress.advance(num_written)
    writer.finish()
    write_class_names(output, stored.data.description.class_names)
    kind_of = {"pseudo": "pseudo labels", "predictions": "predictions"}[labels]
    logger.info("%d %s of the %s split in %s", num_written, kind_of, stored.role, output)
    return num_written


def run_onnx(model: str, output: str) -> str:
    """Writes model.onnx and class_names.txt, and returns the path of the former.

    Args:
        model: see `find_model`.

    Raises:
        ConfigError: the output has such files that no export wrote.
    """
    names = [ONNX_NAME, CLASS_NAMES_NAME]
    check_free(output, names)
    path = storage.join(output, ONNX_NAME)
    class_names = export_onnx(model, path)
    note_export(output, names)
    write_class_names(output, class_names)
    logger.info("%s in %s", model, path)
    return path


def find_labels(workspace: str, labels: str) -> StoredLabels:
    """Finds the shards of pseudo labels or predictions.

    Raises:
        ArtifactError: the workspace has none.
    """
    outputs = stage_outputs(workspace)
    if outputs is None:
        raise ArtifactError(
            f"{workspace} has no {SUMMARY_NAME}: name the workspace of a finished pipeline"
        )
    prepared = outputs[prepare.STAGE]
    record = _record(prepared)
    data = open_prepared(Result(output_dir=prepared, record=record, cached=True))
    if labels == "predictions":
        scored = outputs[evaluate.STAGE]
        return StoredLabels(
            data=data,
            role=_record(scored).config["split"],
            directory=evaluate.predictions_dir(scored),
            column="prediction",
        )
    made = outputs.get(import_files.LABELS_STAGE) or outputs[refine.STAGE]
    directory = refine.pseudo_labels_dir(made)
    return StoredLabels(data=data, role=TRAIN, directory=directory, column="pseudo_label")


def _record(directory: str) -> Record:
    record = read_record(directory)
    if record is None:
        raise ArtifactError(
            f"{directory} has no record: it was removed or is not finished. Run the pipeline again"
        )
    return record


def _shards(stored: StoredLabels) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of each shard: image_id, image, and encoded labels."""
    for name in stored.data.names(stored.role):
        image_path = storage.join(stored.data.images(stored.role), name)
        label_path = storage.join(stored.directory, name)
        images = storage.read_table(image_path, ["image_id", "image"]).to_pylist()
        labels = storage.read_table(label_path, ["image_id", stored.column]).to_pylist()
        if [row["image_id"] for row in images] != [row["image_id"] for row in labels]:
            raise ArtifactError(
                f"{image_path} and {label_path} have different images: run the pipeline again"
            )
        yield [image | label for image, label in zip(images, labels, strict=True)]
