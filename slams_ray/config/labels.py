"""Settings of inference, background threshold, dense CRF and pseudo labels."""

from dataclasses import dataclass
from typing import Literal

from slams_ray.config.checks import check


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Multi-scale inference (docs/method.md, Inference)."""

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    """Image scales at which a network runs; their maps are summed."""
    flip: bool = True
    """Whether the mirrored image is included as well."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the networks. auto is bfloat16 on devices that multiply it natively (GPUs
    since Ampere, CPUs with AMX or AVX512-BF16), else float32; choose float32 if machines of
    different kinds must produce identical maps."""

    def __post_init__(self) -> None:
        check(
            bool(self.scales) and min(self.scales) > 0,
            "inference.scales",
            self.scales,
            "positive numbers",
        )


@dataclass(frozen=True, kw_only=True)
class ActivationInferenceConfig(InferenceConfig):
    """CAM and SLAMs inference (docs/method.md, Inference)."""

    max_logit: float | None = None
    """Upper bound of SLAMs logits; None sets no bound. Set it with sigmoid masks, whose losses do
    not distinguish high logits, and leave it None with normalised masks; CAM never uses it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        value = self.max_logit
        check(value is None or value > 0, "inference.max_logit", value, "a positive number")


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig:
    """Choice of the background threshold on the training split (docs/method.md, Seeds and
    thresholds)."""

    num_thresholds: int = 256
    """Number of thresholds that are scored, evenly spaced from 0 to 1. More of them cost no time.
    """
    without_masks: Literal["cam_foreground", "bimodality", "fallback"] = "cam_foreground"
    """How the threshold is chosen if no training image has a mask: by one of the label-free
    criteria, or `threshold.fallback`. cam_foreground matches the foreground area that CAM has at
    its most bimodal threshold."""
    fallback: float = 0.2
    """Threshold where nothing else chooses one; the literature uses 0.15 to 0.25."""
    fixed: float | None = None
    """Threshold to use in place of the chosen one; None uses the choice."""

    def __post_init__(self) -> None:
        check(self.num_thresholds >= 2, "threshold.num_thresholds", self.num_thresholds, ">= 2")
        for name in ("fallback", "fixed"):
            value = getattr(self, name)
            check(
                value is None or 0 <= value <= 1, f"threshold.{name}", value, "a number in [0, 1]"
            )


@dataclass(frozen=True, kw_only=True)
class CrfConfig:
    """Dense CRF and pseudo labels (docs/method.md, Dense CRF and pseudo labels)."""

    form: Literal["label", "constant", "power"] = "label"
    """Unary term: label takes hard seeds (IRN); constant takes scores and a constant background
    score; power takes scores and the background score (1 - max A)^alpha.
    """
    backend: Literal["pydensecrf", "numba", "torch"] = "numba"
    """Implementation: numba compiles on its first run and is faster than pydensecrf, the reference.
    torch is for idle GPUs, and slower on CPUs."""
    iterations: int = 10
    """Number of mean-field iterations; 0 leaves seeds unrefined."""
    gt_prob: float = 0.7
    """label form: probability that a pixel of the seed has its label."""
    cam_power: float = 1.0
    """Power to which maps and thresholds are raised before the CRF; 1.3 is usual on COCO. It
    changes the scores of the constant and power forms, not the seeds."""
    alpha: float = 10.0
    """power form: exponent of the background score; a larger one leaves less background."""
    alpha_pair: tuple[float, float] = (6.0, 24.0)
    """power form: exponents of the confident pair, from much background to little. Pixels on which
    the two disagree become 255."""
    gaussian_sxy_px: float = 3.0
    """Standard deviation of the Gaussian kernel in pixels."""
    gaussian_compat: float = 3.0
    """Weight of the Gaussian kernel."""
    bilateral_sxy_px: float = 50.0
    """Spatial standard deviation of the bilateral kernel in pixels; 80 is usual with the constant
    and power forms."""
    bilateral_srgb: float = 5.0
    """Colour standard deviation of the bilateral kernel in 8-bit steps; 13 is usual with the
    constant and power forms."""
    bilateral_compat: float = 10.0
    """Weight of the bilateral kernel."""
    foreground_margin: float = 0.1
    """label and constant forms: distance of the foreground threshold of the confident pair above
    the chosen threshold."""
    background_margin: float = 0.1
    """label and constant forms: distance of the background threshold of the confident pair below
    the chosen one, of which it is at least a third. Pixels between the pair become 255; with both
    margins 0 no pixel does, as in published results."""
    export: Literal["none", "masks", "voc"] = "masks"
    """Additional output in VOC layout: none, palette PNGs with lists (masks), or these and the
    images (voc)."""

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


@dataclass(frozen=True, kw_only=True)
class PredictionCrfConfig:
    """Dense CRF on the predictions of the segmentation network, scored beside those without it.

    The kernels are those of published DeepLabV2 programs.
    """

    iterations: int = 0
    """Number of mean-field iterations; 0 switches the CRF off, 10 is usual."""
    backend: Literal["pydensecrf", "numba", "torch"] = "numba"
    """Implementation, as for crf.backend."""
    gaussian_sxy_px: float = 1.0
    """Standard deviation of the Gaussian kernel in pixels."""
    gaussian_compat: float = 3.0
    """Weight of the Gaussian kernel."""
    bilateral_sxy_px: float = 67.0
    """Spatial standard deviation of the bilateral kernel in pixels."""
    bilateral_srgb: float = 3.0
    """Colour standard deviation of the bilateral kernel in 8-bit steps."""
    bilateral_compat: float = 4.0
    """Weight of the bilateral kernel."""

    def __post_init__(self) -> None:
        check(self.iterations >= 0, "segmentation.crf.iterations", self.iterations, ">= 0")
        for name in ("gaussian_sxy_px", "bilateral_sxy_px", "bilateral_srgb"):
            value = getattr(self, name)
            check(value > 0, f"segmentation.crf.{name}", value, "> 0")
