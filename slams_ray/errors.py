"""Errors a user can cause and mend: what we got, what was expected, what to do."""

import json
import traceback


class SlamsError(Exception):
    """Base of all errors below; jobs print its message without a traceback and exit with 1."""


class ConfigError(SlamsError):
    """A config value, or a combination of values, that cannot work."""


class DataError(SlamsError):
    """An image, mask, annotation or list that cannot be read or contradicts another."""


class ArtifactError(SlamsError):
    """An output of an earlier stage that is missing, truncated or was made by something else."""


class TrainingError(SlamsError):
    """A training that ended with an error of its own after the allowed restarts."""


def packed(error: SlamsError) -> str:
    """Message and traceback of an error as text, for another process to raise it by `unpacked`."""
    return json.dumps([str(error), "".join(traceback.format_exception(error))])


def unpacked(kind: str, text: str) -> SlamsError:
    """The error of another process, with its traceback there as a note.

    Args:
        kind: name of its class.
    """
    message, trace = json.loads(text)
    error: SlamsError = globals()[kind](message)
    error.add_note(f"\nIn the process that raised it:\n{trace}")
    return error
