"""A record beside every stage output: what made it, from what, and what it found."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slams_ray import storage
from slams_ray.errors import ArtifactError

RECORD_NAME = "record.json"
FORMAT = 3
"""Raised when the meaning of an output changes, so that older outputs are not mistaken for current
ones.
"""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Written last into a stage's output directory: its presence means the output is whole.

    Attributes:
        config: the part of the config the stage depends on.
        inputs: input stage (or "source") -> fingerprint or digest.
        seconds: working time of the attempt that finished.
        num_rows: images the stage handled.
        metrics: scores as fractions.
        notes: anything else worth keeping: counts, skipped images, choices.
        warnings: what to look at before using the output, and what to change.
        nodes: id of a node of the cluster -> shards, or training workers, that were on it.
    """

    stage: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    seconds: float
    num_rows: int
    metrics: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    nodes: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    mlflow_run_id: str | None = None


def to_plain(config: Any) -> dict[str, Any]:
    """A dataclass as nested dictionaries of JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted names."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def fingerprint(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """12 hexadecimal digits that differ when the stage, its config or its inputs differ."""
    text = json.dumps([FORMAT, stage, config, dict(inputs)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_record(directory: str) -> Record | None:
    """The record of a finished output, None when there is none.

    Raises:
        ArtifactError: the record is truncated or of another form.
    """
    path = storage.join(directory, RECORD_NAME)
    if not storage.exists(path):
        return None
    try:
        return Record(**json.loads(storage.read_bytes(path)))
    except (ValueError, TypeError) as error:
        raise ArtifactError(
            f"{path} is truncated or not a record ({error}): remove {directory}, the next run "
            "makes it again"
        ) from error


def write_record(directory: str, record: Record) -> None:
    """Writes record.json whole; call it after everything else is in place."""
    text = json.dumps(dataclasses.asdict(record), indent=1)
    storage.write_bytes(storage.join(directory, RECORD_NAME), text.encode())


def changed_fields(old: Record, config: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
    """Settings and inputs in which an earlier output differs, by dotted name with both values."""
    before = flatten(old.config) | {f"input {k}": v for k, v in old.inputs.items()}
    after = flatten(config) | {f"input {k}": v for k, v in inputs.items()}
    return [
        f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
