"""All settings of a pipeline."""

from dataclasses import dataclass, field, fields
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

SystemName = Literal["cam", "slams"]


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """All settings of a pipeline."""

    data: DataConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    activation: ActivationConfig = field(default_factory=ActivationConfig)
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
        for name in ("encoder", "classifier", "activation", "affinity", "segmentation"):
            batch_size = getattr(self, name).training.batch_size
            check(
                batch_size >= self.compute.train_workers,
                f"{name}.training.batch_size",
                batch_size,
                f"at least one image for each of compute.train_workers "
                f"({self.compute.train_workers})",
            )

        self._check_accumulation()
        if "walk" in self.refinement.steps:
            check(
                self.classifier.backbone.weights != "none" or "cam" in self.systems,
                "classifier.backbone.weights",
                "none",
                "weights for the features that the walk needs, or cam among baselines, whose "
                "classifier then gives them",
            )

    def _check_accumulation(self) -> None:
        """Checks that no BatchNorm would see a part of a batch. The edge network has none."""
        for name in (f.name for f in fields(self) if f.name != "affinity"):
            part = getattr(self, name)
            parts = part.training.accumulation_steps if hasattr(part, "training") else 1
            # A network without a backbone of its own has the classifier's.
            backbone = getattr(part, "backbone", self.classifier.backbone)
            has_frozen = backbone.freeze_batch_norm and getattr(part, "head", "") != "deeplabv3"
            check(
                parts == 1 or has_frozen,
                f"{name}.training.accumulation_steps",
                parts,
                "1, because BatchNorm learns its statistics: set backbone.freeze_batch_norm, and "
                "segmentation.head to deeplabv2",
            )

    @property
    def systems(self) -> tuple[SystemName, ...]:
        """All systems whose maps are made, baselines first, each once."""
        return tuple(dict.fromkeys((*self.baselines, self.system)))
