"""Notes of what this program wrote into an output, so that a later run knows it as its own."""

import json
from collections.abc import Iterable

from slams_ray import storage
from slams_ray.artifacts import digest

WRITTEN = "written"
"""Directory in an output with these notes."""


def noted(directory: str) -> set[str]:
    """Returns the names in all notes of a directory."""
    found: set[str] = set()
    for name in storage.list_names(directory):
        if name.endswith(".json"):
            found |= set(json.loads(storage.read_bytes(storage.join(directory, name))))
    return found


def note(directory: str, names: Iterable[str]) -> None:
    """Notes the names that are not noted yet."""
    new = sorted(set(names) - noted(directory))
    if new:
        # The name follows from the content, so runs at the same time do not replace their notes.
        path = storage.join(directory, f"{digest(new)}.json")
        storage.write_bytes(path, json.dumps(new).encode())
