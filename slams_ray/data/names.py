"""Checks of image names in annotation files: no name may lead outside its directory."""

import re

from slams_ray.errors import DataError

MAX_NAME_BYTES = 200
"""File systems allow 255; suffixes and names of temporary files need the rest."""
# Control characters end lines of lists and C strings; a lone surrogate cannot be encoded.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f/\\\ud800-\udfff]")


def check_file_name(name: str, source: str) -> None:
    """Raises DataError unless a name is a valid file name without any directory.

    Args:
        source: the file that contains the name, for the message.
    """
    num_bytes = len(name.encode("utf-8", "surrogatepass"))
    bad = name in ("", ".", "..") or num_bytes > MAX_NAME_BYTES or _UNUSABLE.search(name)
    if bad:
        raise DataError(
            f"{source}: {_shown(name)} cannot be a file name: rename the image, with at most "
            f"{MAX_NAME_BYTES} bytes, no slash and no control character"
        )


def check_relative_path(path: str, source: str) -> None:
    """Raises DataError unless a relative path stays inside its base directory."""
    parts = path.split("/")
    if ".." in parts or parts[0] == "" or "://" in path:
        raise DataError(
            f"{source}: {_shown(path)} is outside its directory: name images by their path in it"
        )
    for part in parts:
        check_file_name(part, source)


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:77]}...")
