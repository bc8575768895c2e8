"""What every format is written from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from slams_ray import storage
from slams_ray.data.schema import DatasetDescription

CLASS_NAMES_NAME = "class_names.txt"


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """An image and its labels.

    Attributes:
        image_id: name of the files of this image, without suffix.
        file_name: name of the image file.
        labels: (H, W) uint8 class indices, 255 for ignore.
    """

    image_id: str
    file_name: str
    labels: np.ndarray


class LabelWriter(Protocol):
    """Writes labels in one format. `write` may be called by several threads at a time."""

    def write(self, image: LabelledImage) -> None:
        """Writes or collects the labels of one image."""

    def finish(self) -> None:
        """Writes what covers all images."""


MakeWriter = Callable[[str, DatasetDescription], LabelWriter]
"""Output directory and description of the data set -> writer."""


def write_class_names(output: str, class_names: Sequence[str]) -> None:
    """Writes a class name a line; the number of the line, from 0, is the class index."""
    text = "".join(f"{name}\n" for name in class_names)
    storage.write_bytes(storage.join(output, CLASS_NAMES_NAME), text.encode())
