"""PASCAL VOC layout, as CVAT imports and exports it under the name Segmentation mask 1.1."""

import re
from typing import ClassVar

from slams_ray import storage
from slams_ray.data.image import IGNORE_COLOUR, encode_mask
from slams_ray.data.schema import DatasetDescription
from slams_ray.errors import DataError
from slams_ray.exports.labelled_image import LabelledImage

LABEL_MAP_NAME = "labelmap.txt"
LIST_NAME = "ImageSets/Segmentation/default.txt"
IGNORE_NAME = "ignore"
_UNUSABLE = re.compile(r"[:\n\r]")


class VocWriter:
    """Writes palette PNGs, their list, and the colour of every class.

    Raises:
        DataError: a class name cannot be written into the label map.
    """

    NAMES: ClassVar = ("SegmentationClass", LABEL_MAP_NAME, LIST_NAME)
    """Files and directories that it writes."""

    def __init__(self, output: str, description: DatasetDescription) -> None:
        self.output = output
        self.description = description
        self._image_ids: list[str] = []
        for name in description.class_names:
            if _UNUSABLE.search(name) or name.startswith("#") or name == IGNORE_NAME:
                raise DataError(
                    f"the class name {name!r} cannot be in {LABEL_MAP_NAME}, where {IGNORE_NAME} "
                    "is reserved, colons separate and # starts a comment: export as masks or coco"
                )

    def write(self, image: LabelledImage) -> None:
        """Writes SegmentationClass/<image id>.png."""
        path = storage.join(self.output, "SegmentationClass", f"{image.image_id}.png")
        storage.write_bytes(path, encode_mask(image.labels, self.description.palette))
        self._image_ids.append(image.image_id)

    def finish(self) -> None:
        """Writes labelmap.txt (`name:r,g,b::`) and ImageSets/Segmentation/default.txt."""
        named = [*zip(self.description.class_names, self.description.palette, strict=True)]
        lines = ["# label:color_rgb:parts:actions"]
        for name, colour in [*named, (IGNORE_NAME, IGNORE_COLOUR)]:
            lines.append(f"{name}:{','.join(map(str, colour))}::")
        self._write_lines(LABEL_MAP_NAME, lines)
        self._write_lines(LIST_NAME, sorted(self._image_ids))

    def _write_lines(self, name: str, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        storage.write_bytes(storage.join(self.output, name), text.encode())
