"""Texts of classes for networks that know images and texts."""

from collections.abc import Mapping, Sequence

from slams_ray.errors import ConfigError


def class_words(class_names: Sequence[str], words: Sequence[str], setting: str) -> list[str]:
    """Returns the words of each class, in the order of the classes.

    Args:
        class_names: names, background first.
        words: "class=words" for classes whose words are not their name.
        setting: name of the setting of `words`, for messages.

    Raises:
        ConfigError: an entry has no such class.
    """
    replaced = _replaced(class_names, words, setting)
    return [replaced.get(name, name) for name in class_names[1:]]


def _replaced(class_names: Sequence[str], words: Sequence[str], setting: str) -> Mapping[str, str]:
    replaced = {}
    for entry in words:
        name, _, own = entry.partition("=")
        if name not in class_names[1:]:
            raise ConfigError(
                f"{setting} has {entry!r}, but no class is called {name!r}: expected class=words "
                f"with one of {', '.join(class_names[1:])}"
            )
        replaced[name] = own
    return replaced
