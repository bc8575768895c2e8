"""Settings of Ray and MLflow that this package needs; what the user has set stays.

Importing the package sets none of them. Jobs set them when they start; of a program that uses the
package as a library, the first connection to Ray or MLflow does. Workers get them from Ray.
"""

import os

_ENVIRONMENT = {
    # Explicit, because Ray's default depends on how the cluster starts and on what ran here before.
    "RAY_AUTH_MODE": "token",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # The retry_queue keeps and retries; MLflow itself would wait for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Tune would write every trial as CSV and TensorBoard too; it is given the JSON it needs itself.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The newer output prints a box and a path even where it is told to print nothing.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Two cold workers import torch for 40 s on a busy 2-core machine; the default limit is 60 s.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",
}


def set_defaults() -> None:
    """Sets the variables that are not set; Ray reads them when it starts, MLflow when imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
