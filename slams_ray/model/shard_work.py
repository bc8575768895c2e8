"""Work on a shard of photographs: predicts each and writes masks as files or as a table."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from slams_ray import storage
from slams_ray.data.batches import work_ahead
from slams_ray.data.image import encode_jpeg, read_file
from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.names import check_relative_path
from slams_ray.errors import DataError
from slams_ray.model.model import Decoded, Model, Prediction

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
PHOTOGRAPHS = "the table of photographs"
NUM_EMPTY = "num_empty"
"""Entry of a summary: number of masks without an object."""
WRITES_AHEAD = 4
"""Predictions that wait to be written on a GPU. One has 8 bytes a pixel."""


Entry = tuple[str, str, bytes | None]
"""Image id, name for messages, and encoded bytes; None if they are in the file of that name."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One photograph.

    Attributes:
        image_id: relative path without suffix, which names the mask.
        path: path or URI of the file.
    """

    image_id: str
    path: str


def mask_names(image_id: str) -> tuple[str, str]:
    """Returns the names of the palette mask and the overlay of an image."""
    return f"{image_id}.png", f"{image_id}_overlay.jpg"


def write_files(output: str, image_id: str, found: Prediction) -> None:
    """Writes the mask and the overlay of `mask_names`."""
    mask, overlay = mask_names(image_id)
    found.save(storage.join(output, mask))
    storage.write_bytes(storage.join(output, overlay), encode_jpeg(found.overlay()))


def check_unique(image_ids: Iterable[str], images: str) -> None:
    """Raises DataError if an id is there twice: two images would get the same mask."""
    found = Counter(image_ids).most_common(1)
    if found and found[0][1] > 1:
        raise DataError(
            f"{images}: {found[0][1]} images are called {found[0][0]!r}, and would get one mask: "
            "rename them, or leave all but one out"
        )


def image_ids_of(table: pa.Table, images: str) -> list[str]:
    """Returns the ids of a table of photographs.

    Raises:
        DataError: the column image_id is no text, lacks a value, or has one twice.
    """
    column = table.column("image_id")
    _check_type(column, "image_id", (pa.string(), pa.large_string()), images)
    if column.null_count:
        raise DataError(
            f"{images}: {column.null_count} rows have no image_id: give each image a name"
        )
    image_ids: list[str] = column.to_pylist()
    check_unique(image_ids, images)
    return image_ids


def _check_type(
    column: pa.ChunkedArray, name: str, expected: tuple[pa.DataType, ...], images: str
) -> None:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if kind not in expected:
        raise DataError(
            f"{images}: the column {name} has the type {column.type}, expected {expected[0]}: "
            "convert it"
        )


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
        """Returns a row for each good image, and counts of rows and of masks without an object,
        with the bad images.

        On a GPU threads read the next images and write the last masks while it computes.
        """
        # One image after another, so that a crash tells which one caused it.
        in_turn = self.entrance is not None
        ahead = 0 if in_turn else self.model.predictor.ahead
        bad: list[list[str]] = []
        read = work_ahead(self._read, _photographs(tables, payload), ahead)
        predicted = self._predicted(read, 1 if in_turn else self.model.images_at_once, bad)
        made = list(work_ahead(self._row, predicted, min(ahead, WRITES_AHEAD)))
        table = pa.Table.from_pylist([row for row, _ in made], schema=PREDICTION_SCHEMA)
        num_empty = sum(not has_object for _, has_object in made)
        return table, {"num_rows": len(made), NUM_EMPTY: num_empty, "bad": bad}

    def _read(self, entry: Entry) -> tuple[str, str, Decoded | DataError]:
        """Returns image id, path, and the decoded image or why it is bad."""
        image_id, path, data = entry
        try:
            self.enter(path)
            check_relative_path(image_id, path)
            data = read_file(path, self.model.limits) if data is None else data
            return image_id, path, self.model.decode(data, path)
        except DataError as error:
            if self.on_bad_image == "fail":
                raise
            return image_id, path, error

    def _predicted(
        self,
        read: Iterator[tuple[str, str, Decoded | DataError]],
        size: int,
        bad: list[list[str]],
    ) -> Iterator[tuple[str, Prediction]]:
        """Yields image id and prediction of good images, and adds the others to `bad`.

        Args:
            size: images that are segmented together.
        """
        while group := list(islice(read, size)):
            bad += [[path, str(found)] for _, path, found in group if isinstance(found, DataError)]
            good = [(name, found) for name, _, found in group if not isinstance(found, DataError)]
            predictions = self.model.predict_decoded([decoded for _, decoded in good])
            yield from zip((image_id for image_id, _ in good), predictions, strict=True)
            # Photographs may be large: these go before the next are read.
            del group, good, predictions

    def _row(self, predicted: tuple[str, Prediction]) -> tuple[dict[str, Any], bool]:
        """Writes a mask, and returns its row and whether an object is in it."""
        image_id, found = predicted
        height, width = found.labels.shape
        if self.files_in is not None:
            write_files(self.files_in, image_id, found)
        row = {
            "image_id": image_id,
            "height": height,
            "width": width,
            "confidence": float(found.confidence.mean()),
            "labels": found.to_png() if self.files_in is None else None,
        }
        return row, bool(found.labels.any())


def _photographs(
    tables: Mapping[str, pa.Table], payload: Sequence[Source] | None
) -> Iterator[Entry]:
    if payload is not None:
        yield from ((source.image_id, source.path, None) for source in payload)
        return
    table = tables["images"]
    image_ids_of(table, PHOTOGRAPHS)
    _check_type(table.column("image"), "image", (pa.binary(), pa.large_binary()), PHOTOGRAPHS)
    for row in table.to_pylist():
        # Without bytes, the name would be read as that of a file.
        yield row["image_id"], row["image_id"], row["image"] or b""
