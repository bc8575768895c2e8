"""Models in MLflow: download."""

import os

from slams_ray.errors import ArtifactError
from slams_ray.redaction import redacted
from slams_ray.runtime.environment import set_defaults
from slams_ray.runtime.retry_queue import first_line


def download(uri: str) -> str:
    """Downloads an MLflow model or artifact, and returns its local path.

    MLFLOW_TRACKING_URI names the server.

    Raises:
        ArtifactError: there is no such model, or the server does not answer.
    """
    set_defaults()
    import mlflow

    try:
        return str(mlflow.artifacts.download_artifacts(uri)).rstrip("/")
    except Exception as error:
        server = redacted(os.environ.get("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri()))
        raise ArtifactError(
            f"MLflow at {server} has no {uri} ({first_line(error)}): set MLFLOW_TRACKING_URI to "
            "the server of the run, and check the name, version or alias"
        ) from error
