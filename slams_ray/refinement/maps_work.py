"""Image and activation shard to an activation shard with refined maps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from slams_ray.data.image import decode_image
from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.stored_maps import unpack_maps

if TYPE_CHECKING:
    from slams_ray.refinement.maps import MapRefinement, WalkRefinement


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


class WalkVariantsMapper(TracedMapper):
    """Walks the maps of slices with several settings, one column for each.

    Args:
        system: the column of maps that walk.
        columns: names of the new columns, betas first, numbers of steps second.
    """

    def __init__(
        self,
        system: str,
        walk: "WalkRefinement",
        betas: Sequence[float],
        nums_steps: Sequence[int],
        columns: Sequence[str],
    ) -> None:
        self.system = system
        self.walk = walk
        self.betas = betas
        self.nums_steps = nums_steps
        self.columns = columns

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        rows = []
        pairs = zip(tables["slices"].to_pylist(), tables["maps"].to_pylist(), strict=True)
        for image_row, map_row in pairs:
            self.enter(image_row["image_id"])
            image = decode_image(image_row["image"], image_row["image_id"])
            labels, size = image_row["image_labels"], (image_row["height"], image_row["width"])
            maps = unpack_maps(map_row[self.system], labels, *size)
            walked = self.walk.variants(image, maps, self.betas, self.nums_steps)
            found = (variant.tobytes() for variant in walked)
            rows.append(
                {"image_id": image_row["image_id"], **dict(zip(self.columns, found, strict=True))}
            )
        binary = dict.fromkeys(self.columns, pa.binary())
        schema = pa.schema({"image_id": pa.string(), **binary})
        return pa.Table.from_pylist(rows, schema=schema), {"num_rows": len(rows)}
