"""Work on a shard of photographs: predicts each and writes masks as files or as a table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from slams_ray import storage
from slams_ray.data.image import encode_jpeg, read_file
from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.names import check_relative_path
from slams_ray.errors import DataError
from slams_ray.model.model import Model, Prediction

PREDICTION_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("confidence", pa.float32()),
        ("labels", pa.binary()),
    ]
)
"""One row an image: size, mean confidence, and the palette PNG unless it is a file."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One photograph.

    Attributes:
        image_id: relative path without suffix, which names the mask.
        path: path or URI of the file.
    """

    image_id: str
    path: str


def write_files(output: str, image_id: str, found: Prediction) -> None:
    """Writes `<image_id>.png` (palette mask) and `<image_id>_overlay.jpg`."""
    target = storage.join(output, image_id)
    found.save(f"{target}.png")
    storage.write_bytes(f"{target}_overlay.jpg", encode_jpeg(found.overlay()))


class PredictMapper(TracedMapper):
    """Predicts the photographs of a shard, which are rows of a table or files.

    Args:
        files_in: directory for masks and overlays; None stores masks in the table.
        on_bad_image: "fail" raises for the first bad image; "skip" leaves bad images out and lists
            them.
    """

    def __init__(self, model: Model, files_in: str | None, on_bad_image: str) -> None:
        self.model = model
        self.files_in = files_in
        self.on_bad_image = on_bad_image

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: Sequence[Source] | None
    ) -> tuple[pa.Table, dict[str, Any]]:
        """Returns a row for each good image, and the number of rows and the bad images."""
        rows, bad = [], []
        for image_id, path, data in _photographs(tables, payload):
            try:
                self.enter(path)
                rows.append(self._row(image_id, path, data))
            except DataError as error:
                if self.on_bad_image == "fail":
                    raise
                bad.append([path, str(error)])
        table = pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA)
        return table, {"num_rows": len(rows), "bad": bad}

    def _row(self, image_id: str, path: str, data: bytes | None) -> dict[str, Any]:
        check_relative_path(image_id, path)
        found = self.model.predict_bytes(read_file(path) if data is None else data, path)
        height, width = found.labels.shape
        if self.files_in is not None:
            write_files(self.files_in, image_id, found)
        return {
            "image_id": image_id,
            "height": height,
            "width": width,
            "confidence": float(found.confidence.mean()),
            "labels": found.to_png() if self.files_in is None else None,
        }


def _photographs(
    tables: Mapping[str, pa.Table], payload: Sequence[Source] | None
) -> Iterable[tuple[str, str, bytes | None]]:
    """Yields image id, name for messages, and encoded bytes; None if they are in a file."""
    if payload is not None:
        yield from ((source.image_id, source.path, None) for source in payload)
        return
    for row in tables["images"].to_pylist():
        yield row["image_id"], row["image_id"], row["image"]
