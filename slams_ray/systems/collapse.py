"""Detects collapsed trainings and says which settings to change (docs/method.md, Collapse)."""

from collections.abc import Mapping, Sequence

EMPTY_MEAN, FULL_MEAN, UNIFORM_CONTRAST = 0.03, 0.97, 0.03
"""Limits for the mean and the standard deviation of maps in [0, 1]. Healthy maps, on the built-in
set and on photographs, had means of 0.1 to 0.6 and standard deviations above 0.15."""
DEAD_FRACTION = 0.9
"""A class counts as dead when more than this share of its maps is empty."""

ADVICE = {
    "all-zero": (
        "the maps of present classes are empty: lower activation.losses.regularization or "
        "activation.training.learning_rate, or raise activation.losses.foreground"
    ),
    "all-one": (
        "the maps of present classes cover the whole image: raise activation.losses.regularization "
        "or activation.losses.foreground. Normalised masks have a maximum of 1, so the maps may be "
        "uniform: raise encoder.dimmed_fraction, or lower activation.losses.equivariance"
    ),
    "uniform": (
        "the maps of present classes are the same everywhere: raise encoder.dimmed_fraction, or "
        "lower activation.losses.equivariance or activation.training.learning_rate"
    ),
}
"""Kind of collapse -> what it means and which settings to change."""


def diagnose_maps(mean: float, contrast: float) -> str | None:
    """Returns the kind of collapse, a key of `ADVICE`, or None for healthy maps.

    Args:
        mean: mean activation of present classes, in [0, 1].
        contrast: standard deviation within a map, mean over the maps.
    """
    if mean < EMPTY_MEAN:
        return "all-zero"
    if contrast >= UNIFORM_CONTRAST:
        return None
    return "all-one" if mean > FULL_MEAN else "uniform"


def map_warnings(
    metrics: Mapping[str, float],
    network: str = "activation network",
    advice: Mapping[str, str] = ADVICE,
) -> list[str]:
    """Returns warnings for the last `activation_mean` and `activation_contrast` of a training.

    Args:
        network: name of the network in the message.
        advice: kind of collapse -> what it means and which settings to change.
    """
    if "activation_mean" not in metrics:
        return []
    mean, contrast = metrics["activation_mean"], metrics["activation_contrast"]
    found = diagnose_maps(mean, contrast)
    if found is None:
        return []
    return [
        f"{found} collapse of the {network} (mean {mean:.3f}, contrast {contrast:.3f}): "
        f"{advice[found]}"
    ]


def dead_class_warnings(
    title: str,
    remedy: str,
    num_maps: Sequence[int],
    num_empty: Sequence[int],
    class_names: Sequence[str],
) -> list[str]:
    """Returns at most one warning, which names the classes whose maps are nearly all empty.

    Args:
        title: title of the system that made the maps.
        remedy: what helps in this system beside longer training and a lower rate; may be empty.
        num_maps, num_empty: (K,) number of maps per class, and how many of them are all zero.
        class_names: (K,) names, background first.
    """
    dead = [
        name
        for name, total, empty in zip(class_names, num_maps, num_empty, strict=True)
        if total and empty > DEAD_FRACTION * total
    ]
    if not dead:
        return []
    return [
        f"dead class: the {title} maps of {', '.join(dead)} are empty in more than "
        f"{DEAD_FRACTION:.0%} of their images: train longer, or lower the learning rate"
        + (f", or {remedy}" if remedy else "")
    ]


def dead_semantics_warnings(dead: Sequence[str]) -> list[str]:
    """Returns at most one warning, which names the classes without an embedding."""
    if not dead:
        return []
    return [
        f"dead class: the encoder's similarity to {', '.join(dead)} is 0 in every image that shows "
        "the class, so its maps learn nothing: lower encoder.training.learning_rate, or train "
        "longer"
    ]
