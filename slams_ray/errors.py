"""Errors a user can cause and mend: what we got, what was expected, what to do."""


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
