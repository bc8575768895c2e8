"""Finished output shards: their metadata, and reuse of current shards of earlier outputs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from slams_ray import storage

ShardNote = dict[str, Any]
"""Metadata in the footer of an output shard: fingerprint, summary, device, node, and the times when
its work began and ended."""

KEY = "slams_ray"
FOOTER_READERS, FOOTERS_AHEAD = 16, 256
"""Reading a footer from an object store takes tens of milliseconds, nearly all of it waiting."""


def read_note(path: str, fingerprint: str) -> ShardNote | None:
    """Reads the metadata of a finished output shard.

    None if the shard is missing, damaged or has another fingerprint.
    """
    note = json.loads((storage.table_metadata(path) or {}).get(KEY, "null"))
    return note if note and note["fingerprint"] == fingerprint else None


def worked(path: str) -> tuple[float, float]:
    """Returns when the work on a finished shard began and ended, in seconds since the epoch."""
    began, ended = json.loads((storage.table_metadata(path) or {})[KEY])["worked"]
    return began, ended


def read_notes(
    directory: str, fingerprints: Mapping[str, str]
) -> Iterator[tuple[str, ShardNote | None]]:
    """Yields (name, metadata) of the shards in a directory, and reads a bounded number in advance.

    Missing shards are left out. The metadata of a shard that is damaged or has another fingerprint
    is None.

    Args:
        fingerprints: shard name -> expected fingerprint, in the order of the result.
    """
    found = set(storage.list_names(directory))
    names = [name for name in fingerprints if name in found]

    def look(name: str) -> tuple[str, ShardNote | None]:
        return name, read_note(storage.join(directory, name), fingerprints[name])

    with ThreadPoolExecutor(FOOTER_READERS) as readers:
        for start in range(0, len(names), FOOTERS_AHEAD):
            yield from readers.map(look, names[start : start + FOOTERS_AHEAD])


def take_over(
    directories: Sequence[str], output_dir: str, fingerprints: Mapping[str, str]
) -> set[str]:
    """Copies the shards of earlier outputs that are still current.

    Args:
        directories: directories of the earlier outputs.
        fingerprints: name -> fingerprint of the missing shards.

    Returns:
        names of the copied shards.
    """
    taken: set[str] = set()
    for directory in directories:
        missing = {name: value for name, value in fingerprints.items() if name not in taken}
        for name, note in read_notes(directory, missing):
            if note is not None:
                data = storage.read_bytes(storage.join(directory, name))
                storage.write_bytes(storage.join(output_dir, name), data)
                taken.add(name)
    return taken
