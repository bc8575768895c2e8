"""From networks to pseudo labels: inference, thresholds, dense CRF."""

from dataclasses import dataclass
from typing import Literal

from slams_ray.config.checks import check


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Multi-scale inference (method sections 5 and 7)."""

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    """Image scales whose maps are summed."""
    flip: bool = True
    """Also the mirrored image."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the networks compute in: auto is bfloat16 where the device multiplies it itself (GPUs
    since Ampere, CPUs with AMX or AVX512-BF16), else float32. On 60 photographs seed mIoU was 44.84
    with bfloat16 and 44.83 with float32 (CAM: 42.69 and 42.75). float32 if machines of several
    kinds shall write the same maps to the last level."""

    def __post_init__(self) -> None:
        check(
            bool(self.scales) and min(self.scales) > 0,
            "inference.scales",
            self.scales,
            "positive numbers",
        )


@dataclass(frozen=True, kw_only=True)
class ActivationInferenceConfig(InferenceConfig):
    """CAM and SLAMs inference (method section 5)."""

    max_logit: float | None = None
    """SLAMs logits above this count as this; None counts them as they are. The losses see a logit
    through its sigmoid, to which all high ones are alike; dividing by the maximum of an image makes
    the difference between them the largest of all. On the built-in set, three seeds, 4 gave 55.3
    seed mIoU where None gave 50.5, and 6 half a point more; CAM, whose loss knows no sigmoid, lost
    3 points and is left as it is. With normalised masks it means nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        value = self.max_logit
        check(value is None or value > 0, "inference.max_logit", value, "a positive number")


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig:
    """Search of the background threshold on the training split."""

    num_thresholds: int = 256
    """Thresholds scored, evenly from 0 to 1. Their number costs nothing."""
    without_masks: Literal[
        "cam_foreground", "bimodality", "stability", "colour_separation", "fallback"
    ] = "cam_foreground"
    """How the threshold is chosen where no training image has a mask: by one of the label-free
    criteria, or `threshold.fallback`. Points of mIoU that SLAMs loses against its best threshold,
    on the built-in set (three seeds) and on photographs of six VOC classes: as much foreground
    as CAM has at its most bimodal threshold 0.5 to 1.0 and 0.1; bimodality 0.4 to 3.6 and 0.0;
    stability 3.7 to 18.1 and 19.3; colour separation 14.3 to 23.6 and 0.1. CAM loses 0.3 to 2.0
    and 0.2 by either of the first two."""
    fallback: float = 0.2
    """A threshold as the literature uses it (method section 6: .15 to .25)."""
    per_class: bool = False
    """Learn a background threshold for each class on one half of the scored images. They are
    applied only if they raise mIoU on the other half, and only to the threshold chosen by mIoU: not
    with threshold.fixed, not with a label-free choice, not with a threshold of the search. The
    power form of the CRF does not use them. It takes many images: learnt on 80 photographs of six
    VOC classes they lost 2 points on 80 others."""
    fixed: float | None = None
    """Use this threshold whatever the search finds."""

    def __post_init__(self) -> None:
        check(self.num_thresholds >= 2, "threshold.num_thresholds", self.num_thresholds, ">= 2")
        for name in ("fallback", "fixed"):
            value = getattr(self, name)
            check(
                value is None or 0 <= value <= 1, f"threshold.{name}", value, "a number in [0, 1]"
            )


@dataclass(frozen=True, kw_only=True)
class CrfConfig:
    """Dense CRF and pseudo labels (method section 6)."""

    form: Literal["label", "constant", "power"] = "label"
    """Unary from hard seeds (IRN), from scores beside a constant background, or beside (1 - max
    A)^alpha.
    """
    backend: Literal["pydensecrf", "numba", "torch"] = "numba"
    """numba: compiled by the machine, half a minute on its first run, then 2.4 to 3.6 times as fast
    as pydensecrf, the reference (2 to 4 labels; `python -m jobs.benchmark crf`). On 40 VOC
    photographs 99.9999 % of the pixels get the same label, and mIoU differs by 0.0001 point.
    torch: the same on GPUs where the cluster has them, four refiners on each; on a CPU slower than
    pydensecrf. It has been run on CPUs only."""
    iterations: int = 10
    """Mean-field iterations; 0 leaves seeds unrefined."""
    gt_prob: float = 0.7
    """label form: confidence of the seed."""
    cam_power: float = 1.0
    """Maps are raised to this power before the CRF sees them, thresholds alike (CAM^1.3 on COCO).
    Seeds stay as they are; scores of the constant and power forms change."""
    alpha: float = 10.0
    """power form: exponent for the refined map."""
    alpha_pair: tuple[float, float] = (6.0, 24.0)
    """power form: exponents that bound the ignore band, low (much background) to high (little)."""
    gaussian_sxy_px: float = 3.0
    """Standard deviation of the Gaussian kernel."""
    gaussian_compat: float = 3.0
    """Weight of the Gaussian kernel."""
    bilateral_sxy_px: float = 50.0
    """Spatial standard deviation of the bilateral kernel; 80 is usual with the softmax forms."""
    bilateral_srgb: float = 5.0
    """Colour standard deviation of the bilateral kernel in 8-bit steps; 13 with softmax forms."""
    bilateral_compat: float = 10.0
    """Weight of the bilateral kernel."""
    foreground_margin: float = 0.1
    """Pixels are confident objects this far above the background threshold..."""
    background_margin: float = 0.1
    """...and confident background this far below it; between, the pseudo label is 255."""
    export: Literal["none", "masks", "voc"] = "masks"
    """Also write palette PNGs and lists in VOC layout: not at all, without, or with the images."""

    def __post_init__(self) -> None:
        check(self.iterations >= 0, "crf.iterations", self.iterations, ">= 0")
        check(0.5 < self.gt_prob < 1, "crf.gt_prob", self.gt_prob, "a number in (0.5, 1)")
        check(self.cam_power > 0, "crf.cam_power", self.cam_power, "> 0")
        low, high = self.alpha_pair
        check(
            0 < low <= self.alpha <= high,
            "crf.alpha_pair",
            self.alpha_pair,
            "two exponents around crf.alpha",
        )
        for name in ("gaussian_sxy_px", "bilateral_sxy_px", "bilateral_srgb"):
            check(getattr(self, name) > 0, f"crf.{name}", getattr(self, name), "> 0")
        for name in ("foreground_margin", "background_margin"):
            check(0 <= getattr(self, name) <= 1, f"crf.{name}", getattr(self, name), "in [0, 1]")
