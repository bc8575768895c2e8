"""Turns an image shard and an activation shard into a pseudo-label shard."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from slams_ray import storage
from slams_ray.artifacts import digest
from slams_ray.data.image import decode_image, decode_mask, encode_mask, image_suffix
from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.names import check_file_name
from slams_ray.data.schema import DatasetDescription
from slams_ray.data.stored_maps import PSEUDO_LABEL_SCHEMA, unpack_maps, upsample_stored
from slams_ray.metrics import IGNORE_INDEX, confusion_matrix
from slams_ray.refinement.pseudo_label import ConfidentPair, Refinement, refine


class RefineMapper(TracedMapper):
    """Refines the maps of a shard. Scores images with a mask, and exports labels on request.

    Args:
        system: name of the column of maps.
        export_dir: directory for palette PNGs in VOC layout; None exports nothing.
        export_images: also export the images, with their encoded bytes unchanged.
    """

    def __init__(
        self,
        description: DatasetDescription,
        system: str,
        pair: ConfidentPair,
        refinement: Refinement,
        export_dir: str | None = None,
        export_images: bool = False,
    ) -> None:
        self.description = description
        self.system = system
        self.pair = pair
        self.refinement = refinement
        self.export_dir = export_dir
        self.export_images = export_images

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        """Returns the pseudo-label shard, and counts that score it."""
        num_all_classes = len(self.description.class_names)
        rows = []
        confusion = np.zeros((num_all_classes, num_all_classes + 1), np.int64)
        num_pixels = num_ignored = 0
        pairs = zip(tables["images"].to_pylist(), tables["activations"].to_pylist(), strict=True)
        for image_row, activation_row in pairs:
            image_id = image_row["image_id"]
            self.enter(image_id)
            refined, pseudo_label = self._refine(image_row, activation_row)
            if image_row["mask"] is not None:
                ground_truth = decode_mask(image_row["mask"], image_id)
                confusion += confusion_matrix(ground_truth, refined, num_all_classes)
            num_pixels += pseudo_label.size
            num_ignored += int((pseudo_label == IGNORE_INDEX).sum())
            rows.append(
                {
                    "image_id": image_id,
                    "refined": encode_mask(refined, self.description.palette),
                    "pseudo_label": encode_mask(pseudo_label, self.description.palette),
                }
            )
            self._export(image_row, rows[-1]["pseudo_label"])
        summary = {
            "num_rows": len(rows),
            "confusion": confusion.tolist(),
            "num_pixels": num_pixels,
            "num_ignored": num_ignored,
            "labels_digest": digest([(row["image_id"], row["pseudo_label"]) for row in rows]),
        }
        return pa.Table.from_pylist(rows, schema=PSEUDO_LABEL_SCHEMA), summary

    def _refine(
        self, image_row: Mapping[str, Any], activation_row: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        image = decode_image(image_row["image"], image_row["image_id"])
        class_indices = np.asarray(activation_row["image_labels"], np.int64)
        stored = unpack_maps(activation_row[self.system], class_indices, *image.shape[:2])
        activation = upsample_stored(stored, image.shape[:2])
        return refine(image, activation, class_indices, self.pair, self.refinement)

    def _export(self, image_row: Mapping[str, Any], pseudo_label: bytes) -> None:
        if self.export_dir is None:
            return
        name = image_row["image_id"]
        # The prepare stage has checked the name too. This check keeps a manipulated shard from
        # writing outside export_dir.
        check_file_name(name, "image shard")
        target = storage.join(self.export_dir, "SegmentationClass", f"{name}.png")
        storage.write_bytes(target, pseudo_label)
        if self.export_images:
            data = image_row["image"]
            # VOC readers expect .jpg. Images of another format keep the suffix of their format.
            suffix = image_suffix(data)
            storage.write_bytes(
                storage.join(self.export_dir, "JPEGImages", f"{name}.{suffix}"), data
            )
