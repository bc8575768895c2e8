"""Image shard to activation shard: CAM and SLAMs maps, uint8 at stride 4, present classes only."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.stored_maps import IMAGE_COLUMNS, SLAMS, activation_schema

if TYPE_CHECKING:
    from slams_ray.inference.predictors import ActivationPredictor


class InferMapper(TracedMapper):
    """Runs the networks of a predictor over the images of a shard; SLAMs is one of them."""

    def __init__(self, predictor: "ActivationPredictor", num_categories: int) -> None:
        self.predictor = predictor
        self.num_categories = num_categories

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        batch = self.predictor(tables["images"].to_pydict(), self.entrance)
        methods = list(self.predictor.networks)
        columns = {name: batch[name] for name in IMAGE_COLUMNS}
        columns |= {m: [maps.tobytes() for maps in batch[m]] for m in methods}
        table = pa.Table.from_pydict(columns, schema=activation_schema(methods))
        num_bytes = sum(len(maps) for maps in columns[SLAMS])
        num_maps, num_empty = self._count_empty(batch["image_labels"], batch[SLAMS])
        return table, {
            "num_rows": table.num_rows,
            "num_bytes": num_bytes,
            "num_maps": num_maps,
            "num_empty": num_empty,
        }

    def _count_empty(
        self, labels: Sequence[Sequence[int]], maps: Sequence[np.ndarray]
    ) -> tuple[list[int], list[int]]:
        """(K,) maps per class, and how many of them are zero everywhere."""
        counts = np.zeros((2, self.num_categories), np.int64)
        for class_indices, stack in zip(labels, maps, strict=True):
            for class_index, activation in zip(class_indices, stack, strict=True):
                counts[:, class_index] += (1, not activation.any())
        return counts[0].tolist(), counts[1].tolist()
