"""The MLflow experiment that holds the runs of a workspace."""

import logging
import os
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from slams_ray import storage
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

    A deleted experiment cannot be used, and MLflow keeps its name. In a workspace that was moved
    or copied, MLflow would write artifacts into the old place. Then a number follows the name.
    """
    location = artifact_location(workspace) if uri.startswith("sqlite:") else None
    for number in count(1):
        candidate = name if number == 1 else f"{name} {number}"
        found = client.get_experiment_by_name(candidate)
        if found is None:
            if number > 1:
                logger.warning("runs are in the MLflow experiment %r", candidate)
            return _create(client, candidate, location)
        problem = _problem(found, location)
        if problem is None:
            _complete_tags(client, found)
            return str(found.experiment_id)
        logger.warning("the MLflow experiment %r %s", candidate, problem)
    raise AssertionError


def _create(client: "MlflowClient", name: str, location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(name, location, experiment_tags()))
    except MlflowException:
        # Another first run may have created it since.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


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
    places = {storage.absolute(place) for place in (found.artifact_location, location) if place}
    if is_own and is_of_another and len(places) > 1:
        return f"has its artifacts in {found.artifact_location}, from where this workspace came"
    return None


def _complete_tags(client: "MlflowClient", found: "Experiment") -> None:
    for key, value in experiment_tags().items():
        if key not in found.tags:
            client.set_experiment_tag(found.experiment_id, key, value)
