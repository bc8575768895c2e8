"""Keeps an export from replacing files that no export wrote.

The format masks writes where the layout of a folder data set has its ground truth.
"""

import json
from collections.abc import Iterable

from slams_ray import storage
from slams_ray.errors import ConfigError

NOTE = "written/export/names.json"
"""Relative paths of the files and directories that exports wrote into an output."""


def claim(output: str, names: Iterable[str]) -> None:
    """Notes that an export writes these files and directories.

    Args:
        names: relative paths of files, and of directories that hold nothing else.

    Raises:
        ConfigError: one is there that no export has noted. Nothing is written then.
    """
    note = storage.join(output, NOTE)
    noted: set[str] = set(json.loads(storage.read_bytes(note))) if storage.exists(note) else set()
    new = sorted(set(names) - noted)
    for name in new:
        parent, _, own = name.rpartition("/")
        if own in storage.list_names(storage.join(output, parent)):
            raise ConfigError(
                f"{storage.join(output, name)} would be overwritten, but no export has written it: "
                "choose another --output, or remove it if it is of an export by an earlier version"
            )
    if new:
        storage.write_bytes(note, json.dumps(sorted(noted.union(new))).encode())
