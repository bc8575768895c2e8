"""What an ablation changes. It imports neither torch nor Ray, so that a dry run takes no time."""

import logging
from collections.abc import Sequence
from typing import Any

from slams_ray.config import PipelineConfig
from slams_ray.config.overrides import override
from slams_ray.errors import ConfigError

logger = logging.getLogger(__name__)

RECIPE = "as the recipe"

_LOSSES = "activation.losses"
_OWN = ("foreground", "background", "regularization", "equivariance", "complementation")
"""Losses of the paper. Without them SLAMs learns image labels, and pseudo labels if there are."""
VARIANTS: dict[str, dict[str, Any]] = {
    RECIPE: {},
    "foreground loss": {f"{_LOSSES}.foreground": 1.0},
    "no foreground loss": {f"{_LOSSES}.foreground": 0.0},
    "no background loss": {f"{_LOSSES}.background": 0.0},
    "no regularization": {f"{_LOSSES}.regularization": 0.0},
    "no consistency": {f"{_LOSSES}.equivariance": 0.0, f"{_LOSSES}.complementation": 0.0},
    "equivariance": {f"{_LOSSES}.equivariance": 1.0, f"{_LOSSES}.complementation": 0.0},
    "complementation": {f"{_LOSSES}.equivariance": 0.0, f"{_LOSSES}.complementation": 1.0},
    "no classification loss": {f"{_LOSSES}.classification": 0.0},
    "pseudo labels of CAM": {
        "activation.pseudo_labels_of": "cam",
        f"{_LOSSES}.pseudo_labels": 1.0,
    },
    "pseudo labels of ReCAM": {
        f"{_LOSSES}.pseudo_labels": 1.0,
        "activation.pseudo_labels_of": "recam",
    },
    "no pseudo labels": {
        "activation.pseudo_labels_of": "cam",
        f"{_LOSSES}.pseudo_labels": 0.0,
    },
    "no losses of SLAMs": {
        f"{_LOSSES}.classification": 1.0,
        **dict.fromkeys((f"{_LOSSES}.{name}" for name in _OWN), 0.0),
    },
    "log form": {f"{_LOSSES}.form": "log"},
    "sigmoid masks": {"activation.mask": "sigmoid"},
    "normalised masks": {"activation.mask": "normalised"},
    "filled with grey": {"activation.fill": "grey"},
    "filled with other images": {"activation.fill": "image"},
    "normalised masks filled with other images": {
        "activation.mask": "normalised",
        "activation.fill": "image",
    },
    "soft binarisation of masks": {"activation.binarisation_width": 0.1},
    "no soft binarisation of masks": {"activation.binarisation_width": 0.0},
    "encoder without masked images": {"encoder.masked_fraction": 0.0},
    "encoder without dimmed images": {"encoder.dimmed_fraction": 0.0},
    "initialised from CAM": {"activation.initialise_from_cam": True},
    "not initialised from CAM": {"activation.initialise_from_cam": False},
}
"""Variant -> settings that differ from the recipe, in the order in which they are changed."""


def choose(config: PipelineConfig, variants: Sequence[str] = ()) -> list[str]:
    """Returns the recipe and the variants, of which each differs from those before it.

    Args:
        variants: names of `VARIANTS`; none means all.

    Raises:
        ConfigError: there is no such variant, or the system is not SLAMs, which they change.
    """
    if config.system != "slams":
        raise ConfigError(
            f"system is {config.system!r}, expected 'slams', which all variants change: "
            "jobs.compare compares systems"
        )
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown:
        known = ", ".join(map(repr, VARIANTS))
        raise ConfigError(f"there is no variant {unknown[0]!r}: choose from {known}")
    chosen = {RECIPE: config}
    for name in dict.fromkeys(variants or VARIANTS):
        varied = override(config, VARIANTS[name])
        equal = next((other for other, settings in chosen.items() if settings == varied), None)
        # Two equal variants would be trained at the same time in the same directory.
        if equal is None:
            chosen[name] = varied
        elif name in variants and name != equal:
            logger.warning("%r is left out, because with these settings it is %r", name, equal)
    return list(chosen)
