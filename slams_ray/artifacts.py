"""Record of a stage output: its settings, inputs, code and results."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from slams_ray import storage
from slams_ray.errors import ArtifactError

RECORD_NAME = "record.json"
FORMAT = 3
"""Version of the output format. Raise it when the meaning of an output changes, so that older
outputs are not used."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Record of a stage output. It is written last: its presence means the output is complete.

    Attributes:
        config: settings that the stage depends on.
        inputs: input stage (or "source") -> fingerprint or digest.
        seconds: working time of the attempt that finished.
        num_rows: number of images.
        metrics: scores as fractions.
        notes: other results: counts, skipped images, choices.
        warnings: problems to check before using the output, and what to change.
        nodes: id of a cluster node -> number of its shards or training workers.
        devices: name of a CPU or GPU -> number of its shards or training workers.
        arithmetic: digest of the code that computes results.
        commit: git commit of the source.
        has_changes: whether the source differed from that commit.
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
    devices: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    arithmetic: str | None = None
    commit: str | None = None
    has_changes: bool | None = None
    mlflow_run_id: str | None = None


def to_plain(config: Any) -> dict[str, Any]:
    """Converts a dataclass to nested dictionaries of JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Converts nested mappings to one mapping with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def digest(values: Iterable[Any]) -> str:
    """32 hexadecimal digits that change when a value or the order of the values changes."""
    total = hashlib.sha256()
    for value in values:
        total.update(repr(value).encode())
    return total.hexdigest()[:32]


def fingerprint(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """12 hexadecimal digits that change when the stage, its settings or its inputs change.

    8 and 8.0 are the same setting: a recipe has the one, a configuration file the other.
    """
    text = json.dumps([FORMAT, stage, _with_whole_numbers(config), dict(inputs)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _with_whole_numbers(value: Any) -> Any:
    """Returns plain values in which integers replace floats that are whole."""
    if isinstance(value, Mapping):
        return {key: _with_whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_record(directory: str) -> Record | None:
    """Reads the record of an output; None if the output is not finished.

    Raises:
        ArtifactError: the record is truncated or has another format.
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
    """Writes record.json atomically; call it after all other files are written."""
    text = json.dumps(dataclasses.asdict(record), indent=1)
    storage.write_bytes(storage.join(directory, RECORD_NAME), text.encode())


def changed_fields(old: Record, config: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
    """Lists settings and inputs that differ from an earlier output: "name: old -> new"."""
    before = flatten(old.config) | {f"input {k}": v for k, v in old.inputs.items()}
    after = flatten(config) | {f"input {k}": v for k, v in inputs.items()}
    return [
        f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
