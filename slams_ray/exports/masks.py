"""Single-channel PNGs, whose pixels every reader sees as class indices."""

import io
import json
from typing import ClassVar

from PIL import Image

from slams_ray import storage
from slams_ray.data.schema import DatasetDescription
from slams_ray.exports.labelled_image import LabelledImage
from slams_ray.metrics import IGNORE_INDEX


class MaskWriter:
    """Writes masks/<image id>.png in mode L, and data.yaml."""

    NAMES: ClassVar = ("masks", "data.yaml")
    """Files and directories that it writes."""

    def __init__(self, output: str, description: DatasetDescription) -> None:
        self.output = output
        self.description = description

    def write(self, image: LabelledImage) -> None:
        """Writes one mask."""
        buffer = io.BytesIO()
        Image.fromarray(image.labels, mode="L").save(buffer, format="PNG")
        path = storage.join(self.output, "masks", f"{image.image_id}.png")
        storage.write_bytes(path, buffer.getvalue())

    def finish(self) -> None:
        """Writes data.yaml: directory of the masks, names by class index, index of ignore."""
        names = [
            # A JSON string is a YAML string, whatever the name contains.
            f"  {index}: {json.dumps(name)}"
            for index, name in enumerate(self.description.class_names)
        ]
        lines = ["masks: masks", f"ignore: {IGNORE_INDEX}", "names:", *names]
        path = storage.join(self.output, "data.yaml")
        storage.write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
