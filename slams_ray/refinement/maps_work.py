"""Image and activation shard to an activation shard with refined maps."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from slams_ray.data.image import decode_image
from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.stored_maps import unpack_maps

if TYPE_CHECKING:
    from slams_ray.refinement.maps import MapRefinement


class RefineMapsMapper(TracedMapper):
    """Replaces the maps of one system; those of the others stay as they are.

    Args:
        system: the column of maps that is refined.
    """

    def __init__(self, system: str, refinement: "MapRefinement") -> None:
        self.system = system
        self.refinement = refinement

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        activations = tables["activations"]
        refined = []
        pairs = zip(tables["images"].to_pylist(), activations.to_pylist(), strict=True)
        for image_row, row in pairs:
            self.enter(row["image_id"])
            refined.append(self._refine(image_row, row))
        index = activations.column_names.index(self.system)
        field = activations.schema.field(index)
        table = activations.set_column(index, field, pa.array(refined, field.type))
        return table, {"num_rows": table.num_rows}

    def _refine(self, image_row: Mapping[str, Any], row: Mapping[str, Any]) -> bytes:
        classes = np.asarray(row["image_labels"], np.int64)
        if not len(classes):
            return b""
        maps = unpack_maps(row[self.system], classes, row["height"], row["width"])
        image = decode_image(image_row["image"], row["image_id"])
        return self.refinement(image, maps).tobytes()
