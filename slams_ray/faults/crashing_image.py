"""An image that crashes every process that decodes it, as a bug in native code would.

Set up in Ray's workers by `environment`; nothing of the pipeline knows of it.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

_VARIABLE = "SLAMS_CRASHING_IMAGE"


def environment(image: Path) -> dict[str, str]:
    """What a driver's environment needs for its workers to die of that image."""
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    runtime_env = {
        "worker_process_setup_hook": f"{__name__}.set_up",
        "env_vars": {_VARIABLE: digest},
    }
    return {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": runtime_env})}


def set_up() -> None:
    """Makes PIL abort where it opens the image."""
    from PIL import Image

    genuine = Image.open

    def deadly(source: Any, *arguments: Any, **options: Any) -> Any:
        data = source.getvalue() if hasattr(source, "getvalue") else Path(source).read_bytes()
        if hashlib.sha256(data).hexdigest() == os.environ[_VARIABLE]:
            os.abort()
        return genuine(source, *arguments, **options)

    Image.open = deadly  # type: ignore[assignment]
