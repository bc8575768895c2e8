"""From maps to better maps: which refinements run, and how the random walk is learnt."""

from dataclasses import dataclass, field
from typing import Literal

from slams_ray.config.checks import check
from slams_ray.config.training import TrainingConfig

RefinementStep = Literal["walk", "pixel_adaptive", "crf"]


@dataclass(frozen=True, kw_only=True)
class RefinementConfig:
    """Which refinements turn maps into pseudo labels."""

    steps: tuple[RefinementStep, ...] = ("crf",)
    """walk and pixel_adaptive refine the maps, in this order; crf refines the labels and comes
    last. Without crf the labels are the thresholded maps."""

    def __post_init__(self) -> None:
        check(
            "crf" not in self.steps[:-1] and len(set(self.steps)) == len(self.steps),
            "refinement.steps",
            self.steps,
            "each step once, and crf last",
        )

    @property
    def map_steps(self) -> tuple[RefinementStep, ...]:
        """The steps that turn maps into maps."""
        return tuple(step for step in self.steps if step != "crf")


@dataclass(frozen=True, kw_only=True)
class AffinityConfig:
    """Training of the edge network that the walk follows. Its backbone is the classifier's."""

    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(epochs=3, head_multiplier=1, weight_decay=1e-4)
    )
    radius: int = 10
    """Pairs of cells closer than this teach the network, in cells of 4 px. Small images want 3 to
    5."""
    margin: float = 0.1
    """Distance of the confident background and foreground thresholds from the chosen threshold, for
    the labels that the network learns from. The lower one is at least a third of the chosen
    one."""
    pair: tuple[float, float] | None = None
    """Both thresholds as fixed values, such as 0.05 0.3 in IRN; None uses affinity.margin."""
    averaging: Literal["batch", "image"] = "batch"
    """The loss averages over all pairs of the batch (IRN), or over the pairs of each image first.
    """

    def __post_init__(self) -> None:
        check(self.radius >= 2, "affinity.radius", self.radius, ">= 2")
        check(0 <= self.margin <= 1, "affinity.margin", self.margin, "in [0, 1]")
        low, high = self.pair or (0, 1)
        check(0 <= low <= high <= 1, "affinity.pair", self.pair, "ascending in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class WalkConfig:
    """Random walk over the maps of an image (IRN)."""

    num_steps: int = 256
    """Steps on a grid of 120 cells, which is 480 px; they scale with the square of the side."""
    beta: float = 8.0
    """Contrast of the affinities. The higher, the less activation crosses weak edges."""
    erase_edges: bool = False
    """Whether maps are multiplied by 1 - edge before they walk, as in IRN. It loses where edges
    fill much of an object, as on small images.
    """

    def __post_init__(self) -> None:
        check(self.num_steps >= 1, "walk.num_steps", self.num_steps, ">= 1")
        check(self.beta > 0, "walk.beta", self.beta, "> 0")


@dataclass(frozen=True, kw_only=True)
class PixelAdaptiveConfig:
    """Pixel-adaptive refinement of the maps by the colours of the image."""

    num_rounds: int = 10
    """Rounds of weighted means; 10 to 20 are usual."""

    def __post_init__(self) -> None:
        rounds = self.num_rounds
        check(rounds >= 1, "pixel_adaptive.num_rounds", rounds, ">= 1")
