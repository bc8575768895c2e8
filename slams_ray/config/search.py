"""Search of the refinement by trials of Ray Tune."""

from dataclasses import dataclass
from typing import Literal

from slams_ray.config.checks import check


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Trials of CRF refinements; a tuple lists the values to choose from, one value is fixed.

    Background threshold and alpha are no dimension of the search: a trial scores many of them on
    one lattice.
    """

    num_samples: int = 0
    """Trials. 0 searches nothing: the threshold curve needs no trials. A search that has run is
    extended when this is raised: only the further trials run."""
    algorithm: Literal["optuna", "random", "grid"] = "optuna"
    """optuna learns from finished trials; grid takes every combination, whatever num_samples."""
    num_images: int = 256
    """Images with masks that score the trials, drawn at random by search.seed. As many others tell
    how well the choice holds."""
    num_slices: int = 4
    """A trial reports after each slice of the images, so that a bad one is stopped early: after 1,
    2, 4 and so on slices, unless it reaches the median of earlier trials (successive halving)."""
    feedback_delay: int = 4
    """Trial n is proposed and stopped by the results of trials 0 to n - feedback_delay alone. So at
    most this many trials run at the same time, and the result is the same however many do. Raise it
    to use more CPUs or GPUs; the search then learns later."""
    thresholds: tuple[float, float] = (0.1, 0.5)
    """Range of background thresholds in the label and constant forms."""
    alphas: tuple[float, float] = (3.0, 24.0)
    """Range of alphas in the power form, on a logarithmic scale."""
    num_thresholds: int = 8
    """Thresholds or alphas in the range."""
    max_ignored: float = 0.25
    """Largest share of pixels that the confident pair may leave to 255. Within it the pair is taken
    whose pseudo labels have the highest mIoU where they are not 255."""
    form: tuple[Literal["label", "constant", "power"], ...] = ("label", "constant", "power")
    """crf.form."""
    iterations: tuple[int, ...] = (4, 10)
    """crf.iterations."""
    gt_prob: tuple[float, ...] = (0.7,)
    """crf.gt_prob, label form only."""
    cam_power: tuple[float, ...] = (0.7, 1.0, 1.3)
    """crf.cam_power, not in the label form."""
    gaussian_sxy_px: tuple[float, ...] = (3.0,)
    """crf.gaussian_sxy_px."""
    gaussian_compat: tuple[float, ...] = (3.0,)
    """crf.gaussian_compat."""
    bilateral_sxy_px: tuple[float, ...] = (30.0, 50.0, 80.0)
    """crf.bilateral_sxy_px."""
    bilateral_srgb: tuple[float, ...] = (3.0, 5.0, 8.0, 13.0)
    """crf.bilateral_srgb."""
    bilateral_compat: tuple[float, ...] = (4.0, 10.0)
    """crf.bilateral_compat."""
    scales: tuple[str, ...] = ()
    """Sets of inference.scales, each as numbers with commas between: 0.5,1 0.5,1,1.5. Maps of the
    scored images are made for every set, those of all images anew where another set is chosen.
    None given: the scales of inference."""
    max_concurrent: int | None = None
    """Trials at the same time; None takes as many as the CPUs allow, and with the torch
    backend of the CRF the GPUs. Never more than search.feedback_delay. No result depends on it."""
    cpus_per_trial: float = 1.0
    """CPUs of one trial; fractions are allowed."""
    time_budget_seconds: float | None = None
    """The search ends after this time; trials that are not finished by then do not count. Which
    those are depends on the machine."""
    seed: int = 0
    """Seeds the draw of the scored images and the choice of points."""

    def __post_init__(self) -> None:
        check(self.num_samples >= 0, "search.num_samples", self.num_samples, ">= 0")
        check(self.feedback_delay >= 1, "search.feedback_delay", self.feedback_delay, ">= 1")
        check(self.num_slices >= 1, "search.num_slices", self.num_slices, ">= 1")
        check(
            self.num_images >= self.num_slices,
            "search.num_images",
            self.num_images,
            f"at least one per slice ({self.num_slices})",
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
                "positive numbers with commas between, as in 0.5,1,1.5",
            )
        for name, values in vars(self).items():
            if isinstance(values, tuple) and name != "scales":
                check(bool(values), f"search.{name}", values, "at least one value")


def scales_of(text: str) -> tuple[float, ...]:
    """Scales from numbers with commas between; none where one is no number."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return ()


def name_of_scales(scales: tuple[float, ...]) -> str:
    """The scales with commas between."""
    return ",".join(f"{scale:g}" for scale in scales)
