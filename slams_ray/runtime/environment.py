"""Environment variables of Ray and MLflow that this package needs. Values of the user are kept.

Importing the package sets nothing. Jobs set the variables when they start. In a program that uses
the package as a library, the first connection to Ray or MLflow sets them. Ray passes them on to
workers.
"""

import os
from pathlib import Path

_ENVIRONMENT = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Each collection takes 0.3 s in every process that imported torch. The default is one each 10 s
    # while actors wait for CPUs, as the actors of a pool that may grow always do.
    "RAY_local_gc_min_interval_s": "600",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # RetryQueue retries requests; MLflow itself would block for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Ray Train's controller asks its workers this often, and train.report waits for it: with the
    # default of 2 s, six checkpoints of a short training waited 10 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # Tune would also log every trial as CSV and TensorBoard; it only needs the JSON logger.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The newer output prints a box and a path even with verbose=0.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Two cold workers import torch for 40 s on a busy 2-core machine; the default limit is 60 s.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",
    # On a busy machine Serve would kill its HTTP proxy while it starts; the default limit is 5 s.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}


def set_defaults() -> None:
    """Sets missing variables. Ray reads them when it starts, MLflow when it is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not _joins_cluster():
        # Ray's default for a cluster that it starts depends on what ran on the machine before.
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _joins_cluster() -> bool:
    """Whether this process joins a running cluster. Its jobs inherit its mode."""
    return os.environ.get("RAY_ADDRESS") not in (None, "", "local")


def token_file() -> Path:
    """Path at which Ray looks for the token of a cluster."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
