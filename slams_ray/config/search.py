"""Settings of the search for a refinement with Ray Tune."""

from dataclasses import dataclass
from typing import Literal

from slams_ray.config.checks import check


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Search for the CRF refinement. A tuple lists the values to choose from; one value is fixed.

    Background threshold and alpha are not searched: a trial scores many of them on one lattice.
    """

    num_samples: int = 0
    """Number of trials; 0 skips the search. Raise it to extend a finished search: only the
    additional trials run."""
    algorithm: Literal["optuna", "random", "grid"] = "optuna"
    """How trials are proposed. optuna learns from finished trials; grid tries all combinations and
    ignores num_samples."""
    num_images: int = 256
    """Number of images with masks that score the trials, drawn at random by search.seed. The same
    number of other images evaluates the choice."""
    num_slices: int = 4
    """Number of slices of the scored images. After 1, 2, 4, ... slices a trial stops if its score
    is below the median of earlier trials (successive halving)."""
    feedback_delay: int = 4
    """Largest number of concurrent trials: only trials 0 to n - feedback_delay influence trial n,
    so the result does not depend on how many run at once. Raise it to use more CPUs or GPUs; the
    search then learns later."""
    thresholds: tuple[float, float] = (0.1, 0.5)
    """label and constant forms: range of background thresholds."""
    alphas: tuple[float, float] = (3.0, 24.0)
    """power form: range of alphas, on a logarithmic scale."""
    num_thresholds: int = 8
    """Number of thresholds or alphas in the range."""
    max_ignored: float = 0.25
    """Largest share of pixels that the confident pair may set to 255. Among the pairs within it,
    the one with the highest mIoU on the other pixels is chosen."""
    form: tuple[Literal["label", "constant", "power"], ...] = ("label", "constant", "power")
    """Values of crf.form to choose from."""
    iterations: tuple[int, ...] = (4, 10)
    """Values of crf.iterations to choose from."""
    gt_prob: tuple[float, ...] = (0.7,)
    """Values of crf.gt_prob to choose from; only the label form uses it."""
    cam_power: tuple[float, ...] = (0.7, 1.0, 1.3)
    """Values of crf.cam_power to choose from; the label form does not use it."""
    gaussian_sxy_px: tuple[float, ...] = (3.0,)
    """Values of crf.gaussian_sxy_px to choose from."""
    gaussian_compat: tuple[float, ...] = (3.0,)
    """Values of crf.gaussian_compat to choose from."""
    bilateral_sxy_px: tuple[float, ...] = (30.0, 50.0, 80.0)
    """Values of crf.bilateral_sxy_px to choose from."""
    bilateral_srgb: tuple[float, ...] = (3.0, 5.0, 8.0, 13.0)
    """Values of crf.bilateral_srgb to choose from."""
    bilateral_compat: tuple[float, ...] = (4.0, 10.0)
    """Values of crf.bilateral_compat to choose from."""
    walk_beta: tuple[float, ...] = ()
    """Values of walk.beta to choose from, with the step walk; empty uses walk.beta."""
    walk_num_steps: tuple[int, ...] = ()
    """Values of walk.num_steps to choose from, with the step walk; empty uses walk.num_steps."""
    scales: tuple[str, ...] = ()
    """Values of inference.scales to choose from, as in `0.5,1 0.5,1,1.5`; empty uses
    inference.scales. Inference runs on the scored images for every value, and again on all images
    if the choice differs from inference.scales."""
    max_concurrent: int | None = None
    """Number of concurrent trials, at most search.feedback_delay; it changes no result. None uses
    all CPUs, or all GPUs with the torch backend of the CRF."""
    cpus_per_trial: float = 1.0
    """Number of CPUs that one trial reserves; fractions are allowed."""
    time_budget_seconds: float | None = None
    """Time after which the search ends and ignores unfinished trials; None sets no limit. The
    result then depends on the speed of the machine."""
    seed: int = 0
    """Random seed of the drawn images and of the proposed trials."""

    def __post_init__(self) -> None:
        check(self.num_samples >= 0, "search.num_samples", self.num_samples, ">= 0")
        check(self.feedback_delay >= 1, "search.feedback_delay", self.feedback_delay, ">= 1")
        check(self.num_slices >= 1, "search.num_slices", self.num_slices, ">= 1")
        check(
            self.num_images >= self.num_slices,
            "search.num_images",
            self.num_images,
            f"at least one image per slice ({self.num_slices})",
        )
        check(0 <= self.max_ignored <= 1, "search.max_ignored", self.max_ignored, "in [0, 1]")
        check(self.num_thresholds >= 1, "search.num_thresholds", self.num_thresholds, ">= 1")
        check(self.cpus_per_trial > 0, "search.cpus_per_trial", self.cpus_per_trial, "> 0")
        low, high = self.thresholds
        check(0 <= low <= high <= 1, "search.thresholds", self.thresholds, "ascending in [0, 1]")
        low, high = self.alphas
        check(0 < low <= high, "search.alphas", self.alphas, "two ascending exponents")
        for text in self.scales:
            check(
                bool(scales_of(text)) and min(scales_of(text)) > 0,
                "search.scales",
                text,
                "positive numbers separated by commas, as in 0.5,1,1.5",
            )
        for name, values in vars(self).items():
            if isinstance(values, tuple) and name not in ("scales", "walk_beta", "walk_num_steps"):
                check(bool(values), f"search.{name}", values, "at least one value")


def scales_of(text: str) -> tuple[float, ...]:
    """Parses scales separated by commas; empty if one of them is not a number."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return ()


def name_of_scales(scales: tuple[float, ...]) -> str:
    """Formats scales as numbers separated by commas."""
    return ",".join(f"{scale:g}" for scale in scales)
