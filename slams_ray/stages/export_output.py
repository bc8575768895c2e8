"""Keeps an export from replacing files that no export wrote.

The format masks writes where the layout of a folder data set has its ground truth.
"""

from collections.abc import Iterable

from slams_ray import storage
from slams_ray.errors import ConfigError
from slams_ray.stages.written import WRITTEN, note, noted

EXPORTS = f"{WRITTEN}/export"


def check_free(output: str, names: Iterable[str]) -> None:
    """Checks that an export replaces only what an earlier one wrote.

    Args:
        names: relative paths of files, and of directories that hold nothing else.

    Raises:
        ConfigError: a file is there, or in such a directory, that no export has noted.
    """
    own = noted(storage.join(output, EXPORTS))
    for name in sorted(set(names) - own):
        path = storage.join(output, name)
        if storage.exists(path) or storage.list_files(path):
            raise ConfigError(
                f"{path} would be overwritten, but no export has written it: choose another "
                "--output, or remove it if it is of an export by an earlier version"
            )


def note_export(output: str, names: Iterable[str]) -> None:
    """Notes that an export writes these files and directories."""
    note(storage.join(output, EXPORTS), names)
