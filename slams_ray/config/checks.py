"""Checks that every settings dataclass runs when it is built."""

from slams_ray.errors import ConfigError
from slams_ray.redaction import holds_password


def check(holds: bool, name: str, got: object, expected: str) -> None:
    """Raises ConfigError with the field, its value and the expected values, unless `holds`."""
    if not holds:
        raise ConfigError(f"{name} is {got!r}, expected {expected}")


def check_address(address: str | None, name: str) -> None:
    """Raises ConfigError for a URI that contains a password: settings are logged and recorded."""
    if address is not None and holds_password(address):
        raise ConfigError(
            f"{name} contains a password: remove it from the address and set credentials in the "
            "environment instead (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for example)"
        )
