"""The check every setting goes through where it is built."""

from slams_ray.errors import ConfigError
from slams_ray.redaction import holds_password


def check(holds: bool, name: str, got: object, expected: str) -> None:
    """Raises ConfigError naming the field, what it got and what was expected."""
    if not holds:
        raise ConfigError(f"{name} is {got!r}, expected {expected}")


def check_address(address: str | None, name: str) -> None:
    """Raises ConfigError for a URI with a password in it: settings are logged and recorded."""
    if address is not None and holds_password(address):
        raise ConfigError(
            f"{name} holds a password: take it out of the address, credentials come from the "
            "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the like)"
        )
