"""Errors that a user can fix. Messages state what was found, what was expected and what to do."""

import json
import traceback


class SlamsError(Exception):
    """Base class of these errors; jobs print the message without traceback and exit with 1."""


class ConfigError(SlamsError):
    """A setting, or a combination of settings, is invalid."""


class DataError(SlamsError):
    """An image, mask, annotation or list cannot be read or contradicts another one."""


class ArtifactError(SlamsError):
    """An output of an earlier stage is missing, truncated or of another kind."""


class TrainingError(SlamsError):
    """A training failed with its own error, or after the allowed number of restarts."""


def how_to_install(extra: str) -> str:
    """Returns the command that installs an optional part of the package."""
    return f"in the directory of slams_ray, pip install -c constraints.txt -e '.[{extra}]'"


def packed(error: SlamsError) -> str:
    """Packs message and traceback of an error as text, for `unpacked` in another process."""
    return json.dumps([str(error), "".join(traceback.format_exception(error))])


def unpacked(kind: str, text: str) -> SlamsError:
    """Rebuilds an error of another process, with its original traceback as a note.

    Args:
        kind: class name of the error.
        text: result of `packed`.
    """
    message, trace = json.loads(text)
    error: SlamsError = globals()[kind](message)
    error.add_note(f"\nIn the process that raised it:\n{trace}")
    return error
