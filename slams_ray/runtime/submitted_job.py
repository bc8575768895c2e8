"""Paths in a job that `ray job submit` started."""

from slams_ray import storage
from slams_ray.errors import ConfigError

COPIED_CODE = "/runtime_resources/working_dir_files/"
"""Part of the path where Ray puts the code of a submitted job."""


def workspace_path(recipe: str, workspace: str | None, option: str) -> str:
    """Returns the workspace as an absolute path, because workers have other directories.

    Args:
        workspace: path or URI; None is runs/<recipe>.

    Raises:
        ConfigError: see `check_stays`.
    """
    path = workspace or f"runs/{recipe}"
    check_stays(option, path)
    return storage.absolute(path)


def check_stays(option: str, path: str) -> None:
    """Raises ConfigError for a place in the copy of the code that Ray makes for a submitted job."""
    if COPIED_CODE in storage.absolute(path):
        raise ConfigError(
            f"{option} is {path}, which is in the copy of the code that Ray makes for this job "
            f"and removes later: give {option} as a path or URI that every node reaches"
        )
