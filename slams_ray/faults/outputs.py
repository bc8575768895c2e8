"""Inspects the outputs of a stage on disk, before and after a fault."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from slams_ray.artifacts import RECORD_NAME, read_record
from slams_ray.stages.training import MODEL_NAME

WHOLE = (".parquet", ".pt", ".json")


@dataclass(frozen=True, kw_only=True)
class Sight:
    """Outputs of a stage at one moment.

    Attributes:
        finished: path of each output -> time of its last change in ns.
        num_begun: number of shards that are begun, but not finished.
        step: last reported step of a training; 0 in other stages.
        checkpoint: step of the last checkpoint of a training; 0 in other stages.
    """

    finished: dict[str, int]
    num_begun: int
    step: int
    checkpoint: int

    @property
    def is_working(self) -> bool:
        return self.num_begun > 0 or self.step > 0

    def redone(self, later: "Sight") -> int:
        """Returns the number of shards or steps that were computed again up to a later moment."""
        rewritten = sum(
            path.endswith(".parquet") and later.finished.get(path) != changed
            for path, changed in self.finished.items()
        )
        return rewritten + self.num_begun + max(self.step - self.checkpoint, 0)


def look(directory: Path) -> Sight:
    """Lists the outputs below the directory of a stage."""
    finished = {}
    num_begun = step = checkpoint = 0
    for path in directory.rglob("*") if directory.exists() else ():
        if path.parent.name.endswith("-attempts"):
            num_begun += 1
        elif path.name == "progress.json":
            step = int(json.loads(path.read_text())["step"])
        elif path.name.startswith("step-"):
            checkpoint = max(checkpoint, int(path.name.removeprefix("step-")))
        elif path.suffix in WHOLE and not path.name.startswith("."):
            finished[str(path)] = _changed(path)
    return Sight(finished=finished, num_begun=num_begun, step=step, checkpoint=checkpoint)


def content(directory: Path) -> dict[str, Any]:
    """Returns path -> digest or metrics of a stage's outputs, independent of time and place."""
    found: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.suffix == ".parquet":
            table = pq.read_table(path).replace_schema_metadata(None)
            found[name] = hashlib.sha256(repr(table.to_pylist()).encode()).hexdigest()
        elif path.name == MODEL_NAME:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == RECORD_NAME:
            record = read_record(str(path.parent))
            found[name] = record and record.metrics
    return found


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        # The file was renamed after the listing.
        return 0
