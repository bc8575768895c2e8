"""Optional libraries that build networks."""

import importlib.util

from slams_ray.errors import ConfigError, how_to_install


def require_extra(library: str, extra: str, system: str) -> None:
    """Raises ConfigError if the library that a system needs is not installed."""
    if importlib.util.find_spec(library) is None:
        raise ConfigError(
            f"system {system} needs {library}, which is not installed: {how_to_install(extra)}"
        )
