"""What a finished search chose: settings of refinement, scales and walk."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from slams_ray import storage
from slams_ray.config import CrfConfig, WalkConfig
from slams_ray.config.search import scales_of
from slams_ray.refinement.pseudo_label import ConfidentPair
from slams_ray.stages.stage import Result
from slams_ray.stages.trials import split_point

SEARCH_NAME = "search.json"


PAIR = ("background", "chosen", "foreground")
"""Fields of ConfidentPair in reports of trials and in search.json."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a finished search chose.

    Attributes:
        crf: settings of refinement.
        background_threshold: None in the power form, whose alpha is in the CRF settings.
        scales: scales of inference.
        walk: settings of the walk; None without one.
    """

    crf: CrfConfig
    background_threshold: float | None
    scales: tuple[float, ...]
    walk: WalkConfig | None = None


def choice(result: Result, crf: CrfConfig, walks: Mapping[str, WalkConfig]) -> Choice:
    """Returns the settings that a finished search chose for refinement and inference.

    Args:
        crf: configured refinement.
        walks: name -> settings of the walks to choose from; empty without the step walk.
    """
    best = json.loads(storage.read_bytes(result.path(SEARCH_NAME)))["best"]
    pair = ConfidentPair(**{name: best[name] for name in PAIR})
    maps, settings = split_point(best["point"])
    chosen, threshold = apply_point(crf, settings, pair)
    return Choice(
        crf=chosen,
        background_threshold=threshold,
        scales=scales_of(maps.scales),
        walk=None if maps.walk is None else walks[maps.walk],
    )


def apply_point(
    crf: CrfConfig, settings: Mapping[str, Any], pair: ConfidentPair
) -> tuple[CrfConfig, float | None]:
    """Returns CRF settings and background threshold. The threshold is None in the power form."""
    chosen = replace(crf, **settings)
    if chosen.form == "power":
        alphas = (pair.foreground, pair.background)
        return replace(chosen, alpha=pair.chosen, alpha_pair=alphas), None
    margins = replace(
        chosen,
        foreground_margin=pair.foreground - pair.chosen,
        background_margin=pair.chosen - pair.background,
    )
    return margins, pair.chosen
