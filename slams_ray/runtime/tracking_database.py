"""The MLflow database of a workspace without a server."""

import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from slams_ray.errors import ConfigError
from slams_ray.runtime.environment import set_defaults
from slams_ray.runtime.tracking_address import DATABASE_NAME

if TYPE_CHECKING:
    from mlflow import MlflowClient


def create_database(workspace: str) -> None:
    """Makes the workspace's MLflow database aside and moves it into place when it is whole.

    MLflow builds it by dozens of migrations; killed between two of them it never opens
    again.
    """
    database = Path(workspace) / DATABASE_NAME
    if database.exists():
        return
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=workspace, prefix=".mlflow-") as directory:
            aside = Path(directory) / DATABASE_NAME
            new_client(f"sqlite:///{aside}").search_experiments()
            _move_unless_there(aside, database)
    except OSError as error:
        reason = f"the workspace {workspace} cannot be written ({error})"
        raise ConfigError(f"{reason}: choose another with --workspace") from error


def _move_unless_there(aside: Path, database: Path) -> None:
    """Another start may have made the database meanwhile, and have it open."""
    try:
        os.link(aside, database)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
        # Without hard links; only one driver at a time gets here.
        aside.replace(database)


def new_client(uri: str) -> "MlflowClient":
    """Imports MLflow, which takes seconds."""
    set_defaults()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)
