"""Turns an image shard into an activation shard: a column of uint8 maps for each system."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from slams_ray.data.image import decode_mask
from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.stored_maps import IMAGE_COLUMNS, activation_schema

if TYPE_CHECKING:
    from slams_ray.inference.activation_predictor import ActivationPredictor

NUM_EMPTY = "num_empty/"
"""Prefix of the count of empty maps in the summary; the system's name follows."""


class InferMapper(TracedMapper):
    """Runs the networks of a predictor over the images of a shard."""

    def __init__(self, predictor: "ActivationPredictor", num_all_classes: int) -> None:
        self.predictor = predictor
        self.num_all_classes = num_all_classes

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        """Returns the maps, and counts: num_maps (K,), num_empty/<system> (K,), num_bytes.

        Args:
            tables: images, and labels where a network was trained on pseudo labels.
        """
        rows = tables["images"].to_pydict()
        if "labels" in tables:
            labels = tables["labels"].to_pydict()
            rows["pixel_labels"] = [
                decode_mask(label, name)
                for label, name in zip(labels["pseudo_label"], labels["image_id"], strict=True)
            ]
        batch = self.predictor(rows, self.entrance)
        systems = list(self.predictor.networks)
        columns = {name: batch[name] for name in IMAGE_COLUMNS}
        columns |= {s: [maps.tobytes() for maps in batch[s]] for s in systems}
        table = pa.Table.from_pydict(columns, schema=activation_schema(systems))
        present_of = batch["image_labels"]
        present = [class_index for class_indices in present_of for class_index in class_indices]
        summary = {
            "num_rows": table.num_rows,
            "num_bytes": sum(len(maps) for s in systems for maps in columns[s]),
            "num_maps": np.bincount(
                np.asarray(present, int), minlength=self.num_all_classes
            ).tolist(),
        }
        for system in systems:
            summary[NUM_EMPTY + system] = self._count_empty(present_of, batch[system])
        return table, summary

    def _count_empty(
        self, labels: Sequence[Sequence[int]], maps: Sequence[np.ndarray]
    ) -> list[int]:
        """Counts the maps of each class that are zero everywhere, (K,)."""
        counts = np.zeros(self.num_all_classes, np.int64)
        for class_indices, stack in zip(labels, maps, strict=True):
            for class_index, activation in zip(class_indices, stack, strict=True):
                counts[class_index] += not activation.any()
        return counts.tolist()
