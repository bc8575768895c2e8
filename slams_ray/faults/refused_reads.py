"""Makes reads of shards and files fail while a flag file exists, as a store that throttles does.

`environment` makes Ray's workers call `set_up`. The pipeline has no code for this fault.
"""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_VARIABLE = "SLAMS_REFUSED_READS"


def environment(flag: Path) -> dict[str, str]:
    """Returns the driver's environment variables that make reads fail while the flag exists."""
    runtime_env = {
        "worker_process_setup_hook": f"{__name__}.set_up",
        "env_vars": {_VARIABLE: str(flag)},
    }
    return {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": runtime_env})}


def set_up() -> None:
    """Patches our storage, below its retries, to raise when it reads a shard or another file."""
    from slams_ray import storage

    genuine = storage._read

    def read(path: str, operation: Callable[[], Any]) -> Any:
        def attempt() -> Any:
            _refuse()
            return operation()

        return genuine(path, attempt)

    storage._read = read  # type: ignore[assignment]


def _refuse() -> None:
    if Path(os.environ[_VARIABLE]).exists():
        raise OSError(errno.EIO, "AWS Error SLOW_DOWN: please reduce your request rate")
