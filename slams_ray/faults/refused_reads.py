"""Makes reads of shards fail while a flag file exists, as when a store throttles requests.

`environment` makes Ray's workers call `set_up`. The pipeline has no code for this fault.
"""

import errno
import json
import os
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
    """Patches pyarrow to raise when it opens or reads a shard."""
    import pyarrow.parquet as pq

    genuine = pq.ParquetFile

    class Refused(genuine):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            _refuse()
            super().__init__(*arguments, **options)

        def read_row_group(self, *arguments: Any, **options: Any) -> Any:
            _refuse()
            return super().read_row_group(*arguments, **options)

    pq.ParquetFile = Refused


def _refuse() -> None:
    if Path(os.environ[_VARIABLE]).exists():
        raise OSError(errno.EIO, "AWS Error SLOW_DOWN: please reduce your request rate")
