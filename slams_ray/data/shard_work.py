"""Work of the stage prepare: reads and checks images and masks, and makes image shards."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from slams_ray.artifacts import digest
from slams_ray.data.image import (
    DEFAULT_LIMITS,
    ImageLimits,
    encode_mask,
    read_file,
    resize,
    store_image,
)
from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.schema import DatasetDescription, Item
from slams_ray.errors import DataError

IMAGE_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", pa.binary()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("image_labels", pa.list_(pa.int16())),
        ("mask", pa.binary()),
    ]
)


class PrepareMapper(TracedMapper):
    """Reads and checks every image and mask once, so that later stages need no checks.

    Args:
        on_bad_image: "fail" raises for the first bad image; "skip" leaves bad images out and lists
            them.
        upright: whether the EXIF orientation is applied. Own masks are drawn on rotated images;
            benchmarks are annotated on the pixels as stored.
        max_side_px: longest side of stored images and masks; larger ones are shrunk.
        limits: images beyond these limits are bad images.
    """

    def __init__(
        self,
        description: DatasetDescription,
        on_bad_image: str,
        upright: bool = False,
        max_side_px: int | None = None,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> None:
        self.description = description
        self.on_bad_image = on_bad_image
        self.upright = upright
        self.max_side_px = max_side_px
        self.limits = limits

    def __call__(
        self, tables: Mapping[str, pa.Table], items: Sequence[Item]
    ) -> tuple[pa.Table, dict[str, Any]]:
        rows, bad = [], []
        for item in items:
            try:
                rows.append(self._row(item))
            except DataError as error:
                if self.on_bad_image == "fail":
                    raise DataError(f"{error}, or set data.on_bad_image to skip") from error
                bad.append([item.image_id, str(error)])
        images_per_class = np.zeros(self.description.num_classes + 1, int)
        for row in rows:
            images_per_class[row["image_labels"]] += 1
        summary = {
            "num_rows": len(rows),
            "num_masks": sum(row["mask"] is not None for row in rows),
            "images_per_class": images_per_class.tolist(),
            "images_digest": digest((r["image_id"], r["image"], r["image_labels"]) for r in rows),
            "masks_digest": digest((r["image_id"], r["mask"]) for r in rows),
            "bad": bad,
        }
        return pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA), summary

    def _row(self, item: Item) -> dict[str, Any]:
        self.enter(item.image_path)
        image = store_image(
            read_file(item.image_path, self.limits),
            item.image_path,
            upright=self.upright,
            max_side_px=self.max_side_px,
            limits=self.limits,
        )
        mask = item.read_mask(*image.full_size) if item.read_mask is not None else None
        height, width = image.size
        if mask is not None and image.size != image.full_size:
            mask = resize(mask, (width, height), Image.Resampling.NEAREST)
        return {
            "image_id": item.image_id,
            "image": image.data,
            "height": height,
            "width": width,
            "image_labels": list(item.image_labels),
            "mask": None if mask is None else encode_mask(mask, self.description.palette),
        }
