"""Keeps the traceback of a failed stage in its output directory."""

import logging
import traceback

from slams_ray import storage
from slams_ray.errors import ArtifactError
from slams_ray.redaction import redacted
from slams_ray.runtime.tracking import Run

logger = logging.getLogger(__name__)

ERROR_NAME = "error.txt"


def write_error(output_dir: str, error: Exception, run: Run) -> None:
    """Writes the traceback, including those of workers, to output directory and MLflow run."""
    text = redacted("".join(traceback.format_exception(error)))
    run.log_text(text, ERROR_NAME)
    path = storage.join(output_dir, ERROR_NAME)
    try:
        storage.write_bytes(path, text.encode())
    except ArtifactError as refused:
        # The error of the stage matters more than this one.
        logger.warning("%s", refused)
        return
    logger.error("the traceback is in %s", path)


def remove_error(output_dir: str) -> None:
    """Removes the traceback of an earlier attempt."""
    path = storage.join(output_dir, ERROR_NAME)
    if storage.exists(path):
        storage.remove(path)
