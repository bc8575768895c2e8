"""Output shards that are there: what their footers say, and which of another output still serve."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from slams_ray import storage

ShardNote = dict[str, Any]
"""What the footer of an output shard says of it: fingerprint, summary, device and node, and from
when to when it was made."""

KEY = "slams_ray"
FOOTER_READERS, FOOTERS_AHEAD = 16, 256
"""Footers of an object store take tens of milliseconds each, nearly all of it waiting."""


def read_note(path: str, fingerprint: str) -> ShardNote | None:
    """The note of a finished output shard; None when it is missing, damaged or foreign."""
    note = json.loads((storage.table_metadata(path) or {}).get(KEY, "null"))
    return note if note and note["fingerprint"] == fingerprint else None


def worked(path: str) -> tuple[float, float]:
    """From when to when, in seconds since the epoch, a finished shard was read and worked on."""
    began, ended = json.loads((storage.table_metadata(path) or {})[KEY])["worked"]
    return began, ended


def read_notes(directory: str, marks: Mapping[str, str]) -> Iterator[tuple[str, ShardNote | None]]:
    """(name, note) of the shards that a directory holds, a bounded number ahead of who iterates.

    Args:
        marks: shard name -> fingerprint it must have; the order is kept. The note of one that is
            damaged or has another fingerprint is None; one that is missing is left out.
    """
    found = set(storage.list_names(directory))
    names = [name for name in marks if name in found]

    def look(name: str) -> tuple[str, ShardNote | None]:
        return name, read_note(storage.join(directory, name), marks[name])

    with ThreadPoolExecutor(FOOTER_READERS) as readers:
        for start in range(0, len(names), FOOTERS_AHEAD):
            yield from readers.map(look, names[start : start + FOOTERS_AHEAD])


def take_over(directories: Sequence[str], output_dir: str, marks: Mapping[str, str]) -> set[str]:
    """Copies shards that an earlier output holds as they would be made now.

    Args:
        directories: of earlier outputs.
        marks: name -> fingerprint of the shards that are missing.

    Returns:
        names of those copied.
    """
    taken: set[str] = set()
    for directory in directories:
        missing = {name: mark for name, mark in marks.items() if name not in taken}
        for name, note in read_notes(directory, missing):
            if note is not None:
                data = storage.read_bytes(storage.join(directory, name))
                storage.write_bytes(storage.join(output_dir, name), data)
                taken.add(name)
    return taken
