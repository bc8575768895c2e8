"""Address and credentials of MLflow. Passwords are kept out of the address."""

import os
from urllib.parse import unquote, urlsplit, urlunsplit

from slams_ray.errors import ConfigError
from slams_ray.redaction import holds_password, redacted
from slams_ray.runtime.environment import set_defaults

DATABASE_NAME = "mlflow.db"


def tracking_uri(workspace: str) -> str:
    """Returns MLFLOW_TRACKING_URI without user and password, or SQLite in the workspace."""
    configured = os.environ.get("MLFLOW_TRACKING_URI")
    if configured:
        return _without_password(configured)
    if "://" in workspace:
        raise ConfigError(
            f"the workspace {workspace} is not on this machine, so it cannot contain the MLflow "
            "database: set MLFLOW_TRACKING_URI to a server"
        )
    return f"sqlite:///{workspace}/{DATABASE_NAME}"


def _without_password(uri: str) -> str:
    """Moves user and password from the address of a server to MLflow's environment variables.

    Addresses appear in messages, tracebacks, records and process lists; the variables do not.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and "@" in parts.netloc:
        user_info, _, host = parts.netloc.rpartition("@")
        user, _, password = user_info.partition(":")
        uri = urlunsplit(parts._replace(netloc=host))
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(user)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
        os.environ["MLFLOW_TRACKING_URI"] = uri
    if holds_password(uri):
        raise ConfigError(
            f"MLFLOW_TRACKING_URI is {redacted(uri)}, with the password of a database, which would "
            "appear in records and process lists: start an MLflow server and set its address"
        )
    return uri


def credentials() -> dict[str, str]:
    """Returns MLflow's environment variables, for the worker that logs on another node."""
    set_defaults()
    return {k: v for k, v in os.environ.items() if k.startswith(("MLFLOW_", "AWS_"))}
