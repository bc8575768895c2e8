"""Addresses, credentials and names in the form that MLflow takes.

Passwords are kept out of the addresses.
"""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from slams_ray.errors import ConfigError
from slams_ray.redaction import holds_password, redacted
from slams_ray.runtime.environment import set_defaults

DATABASE_NAME = "mlflow.db"
ARTIFACTS = "mlartifacts"
_MAX_NAME, _DIGEST_DIGITS = 250, 6
"""Characters that MLflow stores of a name, and those that tell apart names that it refuses."""


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
    return database_uri(f"{workspace}/{DATABASE_NAME}")


def database_uri(path: str) -> str:
    """Returns the address of the SQLite database at a local path.

    In an address, SQLAlchemy ends a path at ? and decodes %41. So what follows the first such
    character is encoded, with its slashes: MLflow creates the directory of the path without
    decoding it, and would otherwise leave one with % in its name beside the workspace.
    """
    special = re.search("[%?]", path)
    start = special.start() if special else len(path)
    return f"sqlite:///{path[:start]}{quote(path[start:], safe='')}"


def artifact_location(workspace: str) -> str:
    """Returns the URI of the directory of MLflow's artifacts in the workspace."""
    if "://" in workspace:
        return f"{workspace}/{ARTIFACTS}"
    return (Path(workspace) / ARTIFACTS).absolute().as_uri()


def accepted_name(name: str) -> str:
    """Returns a name that MLflow accepts for a metric, parameter or tag.

    MLflow refuses characters such as & ( ) , +, names that would be another path (a//b, ../a), and
    more than 250 characters. Where it refuses the name, such parts become _, and a digest of the
    name follows, so that "cat & dog" and "cat + dog" stay different.
    """
    parts = re.sub(r"[^\w .:/-]", "_", name).split("/")
    shown = "/".join("_" if part in ("", ".", "..") else part for part in parts)
    if shown == name and len(name) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:_DIGEST_DIGITS]
    return f"{shown[: _MAX_NAME - _DIGEST_DIGITS - 1]}-{digest}"


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
