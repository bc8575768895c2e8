"""Image shard to activation shard: CAM and SLAMs maps, uint8 at stride 4, present classes only."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from slams_ray.core.seed import stored_size
from slams_ray.mappers.traced import TracedMapper

if TYPE_CHECKING:
    from slams_ray.predictors import ActivationPredictor

CAM, SLAMS = "cam", "slams"
METHODS = (CAM, SLAMS)
IMAGE_COLUMNS = {
    "image_id": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "image_labels": pa.list_(pa.int16()),
}


def activation_schema(methods: Iterable[str] = METHODS) -> pa.Schema:
    """Columns of an activation shard: of the image, and the bytes of the maps of every method."""
    return pa.schema(IMAGE_COLUMNS | dict.fromkeys(methods, pa.binary()))


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


def unpack_maps(
    data: bytes, image_labels: Sequence[int] | np.ndarray, height: int, width: int
) -> np.ndarray:
    """(P, h, w) uint8 maps of one row; h, w follow from the image size."""
    shape = (len(image_labels), *stored_size(height, width))
    return np.frombuffer(data, np.uint8).reshape(shape)
