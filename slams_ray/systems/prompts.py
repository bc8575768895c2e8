"""Texts of classes for networks that know images and texts."""

from collections.abc import Mapping, Sequence

from slams_ray.config import ClimsConfig, ClipEsConfig
from slams_ray.errors import ConfigError


def class_texts(
    class_names: Sequence[str], config: ClimsConfig | ClipEsConfig, system: str
) -> list[str]:
    """Returns the text of each class, in the order of the classes, then those of background.

    Args:
        class_names: names, background first.
        system: name of the system, for messages.

    Raises:
        ConfigError: an entry of `words` has no such class.
    """
    own = _own_words(class_names, config.words, f"{system}.words")
    words = [own.get(name, name) for name in class_names[1:]]
    return [config.template.replace("{}", text) for text in (*words, *config.background_words)]


def _own_words(class_names: Sequence[str], words: Sequence[str], setting: str) -> Mapping[str, str]:
    """Returns class -> words, of entries "class=words"."""
    found = {}
    for entry in words:
        name, _, own = entry.partition("=")
        if name not in class_names[1:]:
            raise ConfigError(
                f"{setting} has {entry!r}, but no class is called {name!r}: expected class=words "
                f"with one of {', '.join(class_names[1:])}"
            )
        found[name] = own
    return found
