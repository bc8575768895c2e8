"""The check every setting goes through where it is built."""

from slams_ray.errors import ConfigError


def check(holds: bool, name: str, got: object, expected: str) -> None:
    """Raises ConfigError naming the field, what it got and what was expected."""
    if not holds:
        raise ConfigError(f"{name} is {got!r}, expected {expected}")
