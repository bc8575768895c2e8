"""Makes one image crash every process that decodes it, as a bug in native code would.

`environment` makes Ray's workers call `set_up`. The pipeline has no code for this fault.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

_VARIABLE = "SLAMS_CRASHING_IMAGE"


def environment(image: Path) -> dict[str, str]:
    """Returns the driver's environment variables that make the image crash its workers."""
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    runtime_env = {
        "worker_process_setup_hook": f"{__name__}.set_up",
        "env_vars": {_VARIABLE: digest},
    }
    return {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": runtime_env})}


def set_up() -> None:
    """Patches PIL to abort the process when it opens the image."""
    from PIL import Image

    genuine = Image.open

    def crashing_open(source: Any, *arguments: Any, **options: Any) -> Any:
        data = source.getvalue() if hasattr(source, "getvalue") else Path(source).read_bytes()
        if hashlib.sha256(data).hexdigest() == os.environ[_VARIABLE]:
            os.abort()
        return genuine(source, *arguments, **options)

    Image.open = crashing_open  # type: ignore[assignment]
