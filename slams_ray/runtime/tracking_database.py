"""MLflow database in the workspace, for use without a server."""

import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from slams_ray.errors import ConfigError
from slams_ray.runtime.environment import set_defaults
from slams_ray.runtime.tracking_address import DATABASE_NAME, database_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient


def create_database(workspace: str) -> None:
    """Creates the MLflow database of the workspace in a temporary directory, then moves it.

    MLflow builds the database by dozens of migrations. If it is killed between two of them, the
    database cannot be opened again.
    """
    database = Path(workspace) / DATABASE_NAME
    if database.exists():
        return
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=workspace, prefix=".mlflow-") as directory:
            aside = Path(directory) / DATABASE_NAME
            new_client(database_uri(str(aside))).search_experiments()
            _move_unless_there(aside, database)
    except OSError as error:
        reason = f"the workspace {workspace} cannot be written ({error})"
        raise ConfigError(f"{reason}: choose another with --workspace") from error


def _move_unless_there(aside: Path, database: Path) -> None:
    """Keeps a database that another process has created meanwhile, and may have open."""
    try:
        os.link(aside, database)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
        # A file system without hard links. The workspace lock allows one driver at a time.
        aside.replace(database)


def new_client(uri: str) -> "MlflowClient":
    """Creates an MLflow client; the import of MLflow takes seconds."""
    set_defaults()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)
