"""All settings of a pipeline."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from slams_ray.config.checks import check
from slams_ray.config.compute import ComputeConfig, TrackingConfig
from slams_ray.config.data import DataConfig
from slams_ray.config.labels import ActivationInferenceConfig, CrfConfig, ThresholdConfig
from slams_ray.config.networks import (
    ActivationConfig,
    ClassifierConfig,
    EncoderConfig,
    SegmentationConfig,
)
from slams_ray.config.refinement import (
    AffinityConfig,
    PixelAdaptiveConfig,
    RefinementConfig,
    WalkConfig,
)
from slams_ray.config.search import SearchConfig
from slams_ray.config.systems import (
    AmnConfig,
    CpnConfig,
    OccseConfig,
    PuzzleConfig,
    RecamConfig,
    SeamConfig,
)

SystemName = Literal["cam", "slams", "recam", "occse", "puzzle", "seam", "cpn", "amn"]
SETTINGS_OF: Mapping[str, tuple[str, ...]] = {
    "slams": ("encoder", "activation"),
    "recam": ("recam",),
    "amn": ("amn",),
    "cpn": ("cpn",),
    "seam": ("seam",),
    "puzzle": ("puzzle",),
    "occse": ("occse",),
}
"""System -> fields of `PipelineConfig` that only this system reads."""


def unread_fields(systems: Iterable[str]) -> set[str]:
    """Returns the fields of `PipelineConfig` that only systems other than these read."""
    read = {name for system in systems for name in SETTINGS_OF.get(system, ())}
    return {name for names in SETTINGS_OF.values() for name in names} - read


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """All settings of a pipeline."""

    data: DataConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    activation: ActivationConfig = field(default_factory=ActivationConfig)
    recam: RecamConfig = field(default_factory=RecamConfig)
    occse: OccseConfig = field(default_factory=OccseConfig)
    puzzle: PuzzleConfig = field(default_factory=PuzzleConfig)
    seam: SeamConfig = field(default_factory=SeamConfig)
    cpn: CpnConfig = field(default_factory=CpnConfig)
    amn: AmnConfig = field(default_factory=AmnConfig)
    inference: ActivationInferenceConfig = field(default_factory=ActivationInferenceConfig)
    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    affinity: AffinityConfig = field(default_factory=AffinityConfig)
    walk: WalkConfig = field(default_factory=WalkConfig)
    pixel_adaptive: PixelAdaptiveConfig = field(default_factory=PixelAdaptiveConfig)
    crf: CrfConfig = field(default_factory=CrfConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    system: SystemName = "slams"
    """System whose maps become pseudo labels."""
    baselines: tuple[SystemName, ...] = ("cam",)
    """Systems whose maps are made and scored for comparison."""
    seed: int = 0
    """Random seed of the initial weights, the augmentation and the image order of all trainings."""

    def __post_init__(self) -> None:
        trained = {"classifier", "affinity", "segmentation"}
        trained.update(name for names in SETTINGS_OF.values() for name in names)
        for name in sorted(trained - unread_fields(self.systems)):
            batch_size = getattr(self, name).training.batch_size
            check(
                batch_size >= self.compute.train_workers,
                f"{name}.training.batch_size",
                batch_size,
                f"at least one image for each of compute.train_workers "
                f"({self.compute.train_workers})",
            )

        check(
            self.system != "amn" or not self.search.num_samples,
            "search.num_samples",
            self.search.num_samples,
            "0 with the system amn, whose maps depend on labels that a search does not have",
        )
        if "puzzle" in self.systems:
            crop_px, stride = self.puzzle.training.crop_px, self.classifier.backbone.output_stride
            check(
                crop_px % (2 * stride) == 0,
                "puzzle.training.crop_px",
                crop_px,
                f"a multiple of {2 * stride}, so that each of 2 x 2 tiles is a multiple of "
                f"classifier.backbone.output_stride ({stride})",
            )
        if "walk" in self.refinement.steps:
            check(
                self.classifier.backbone.weights != "none" or "cam" in self.systems,
                "classifier.backbone.weights",
                "none",
                "weights for the features that the walk needs, or cam among baselines, whose "
                "classifier then gives them",
            )

    @property
    def systems(self) -> tuple[SystemName, ...]:
        """All systems whose maps are made, baselines first, each once."""
        return tuple(dict.fromkeys((*self.baselines, self.system)))
