"""The MLflow experiment that holds the runs of a workspace."""

import logging
import os
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from slams_ray.errors import ConfigError
from slams_ray.runtime.retry_queue import first_line
from slams_ray.runtime.tracking_address import ARTIFACTS, artifact_location
from slams_ray.runtime.tracking_view import experiment_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


def find_experiment(client: "MlflowClient", uri: str, workspace: str, name: str) -> str:
    """Returns the id of the experiment, which is created if it is missing.

    An experiment that was deleted, or whose workspace was moved or copied since, cannot be used:
    MLflow keeps the name of the one, and the place of the other's artifacts. A number then follows
    the name.
    """
    location = artifact_location(workspace) if uri.startswith("sqlite:") else None
    for number in count(1):
        candidate = name if number == 1 else f"{name} {number}"
        found = client.get_experiment_by_name(candidate)
        if found is None:
            if number > 1:
                logger.warning("runs are in the MLflow experiment %r", candidate)
            return str(client.create_experiment(candidate, location, experiment_tags()))
        problem = _problem(found, location)
        if problem is None:
            _complete_tags(client, found)
            return str(found.experiment_id)
        logger.warning("the MLflow experiment %r %s", candidate, problem)
    raise AssertionError


def answered(uri: str, ask: Callable[[], Answer]) -> Answer:
    """Returns the answer of MLflow.

    Raises:
        ConfigError: no MLflow answers at the address.
    """
    try:
        return ask()
    except Exception as error:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI is {uri}, but no MLflow answers there ({first_line(error)}): "
            "start the server, correct the address, or unset it to track in the workspace"
        ) from error


def _problem(found: "Experiment", location: str | None) -> str | None:
    """Says why the runs of this workspace cannot be in an experiment; None if they can."""
    if found.lifecycle_stage != "active":
        return "is deleted"
    # A database that several workspaces were told to share has one place of artifacts.
    is_own = location is not None and "MLFLOW_TRACKING_URI" not in os.environ
    is_of_another = found.artifact_location.endswith(f"/{ARTIFACTS}")
    if is_own and is_of_another and found.artifact_location != location:
        return f"has its artifacts in {found.artifact_location}, from where this workspace came"
    return None


def _complete_tags(client: "MlflowClient", found: "Experiment") -> None:
    for key, value in experiment_tags().items():
        if key not in found.tags:
            client.set_experiment_tag(found.experiment_id, key, value)
