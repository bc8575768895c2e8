"""What a collapsed training looks like, and what to change (table in method section 3)."""

from collections.abc import Mapping, Sequence

EMPTY_MEAN, FULL_MEAN, UNIFORM_CONTRAST = 0.03, 0.97, 0.03
"""Limits for the mean and the standard deviation of maps in [0, 1]; on the built-in set and on
photographs trained maps had means of .1 to .6 and contrasts above .15."""
DEAD_FRACTION = 0.9
"""A class is dead when more than this share of its maps is empty."""

ADVICE = {
    "all-zero": (
        "the maps of present classes are empty: lower activation.losses.regularization or "
        "activation.training.learning_rate, or raise activation.losses.foreground"
    ),
    "all-one": (
        "the maps of present classes cover the whole image: raise activation.losses.regularization "
        "or activation.losses.foreground. With normalised masks, whose maximum is 1, they "
        "may be uniform: raise encoder.dimmed_fraction, or lower activation.losses.equivariance"
    ),
    "uniform": (
        "the maps of present classes are the same everywhere: raise encoder.dimmed_fraction, or "
        "lower activation.losses.equivariance or activation.training.learning_rate"
    ),
}
"""Collapse -> what it is and what to change."""


def diagnose_maps(mean: float, contrast: float) -> str | None:
    """Key of `ADVICE` for the maps of a whole training, None for healthy ones.

    Args:
        mean: mean activation of present classes, in [0, 1].
        contrast: mean standard deviation within a map.
    """
    if mean < EMPTY_MEAN:
        return "all-zero"
    if contrast >= UNIFORM_CONTRAST:
        return None
    return "all-one" if mean > FULL_MEAN else "uniform"


def map_warnings(metrics: Mapping[str, float]) -> list[str]:
    """Warnings for the last `activation_mean` and `activation_contrast` of a training."""
    if "activation_mean" not in metrics:
        return []
    mean, contrast = metrics["activation_mean"], metrics["activation_contrast"]
    found = diagnose_maps(mean, contrast)
    if found is None:
        return []
    return [
        f"{found} collapse of the activation network (mean {mean:.3f}, contrast {contrast:.3f}): "
        f"{ADVICE[found]}"
    ]


def dead_class_warnings(
    title: str, num_maps: Sequence[int], num_empty: Sequence[int], class_names: Sequence[str]
) -> list[str]:
    """One warning naming the classes whose maps are empty in nearly all their images.

    Args:
        title: of the system whose maps they are.
        num_maps, num_empty: (K,) maps per class and how many are zero everywhere.
        class_names: (K,) background first.
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
        f"{DEAD_FRACTION:.0%} of their images. Train longer or lower the learning rate. For SLAMs "
        "lower activation.losses.regularization and activation.losses.classification"
    ]


def dead_semantics_warnings(dead: Sequence[str]) -> list[str]:
    """One warning naming the categories the encoder gives no embedding."""
    if not dead:
        return []
    return [
        f"dead category: the encoder's similarity to {', '.join(dead)} is 0 in every image that "
        "shows it, so their maps learn nothing: lower encoder.training.learning_rate, or train "
        "longer"
    ]
