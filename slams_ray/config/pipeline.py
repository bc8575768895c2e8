"""All settings of a pipeline."""

from dataclasses import dataclass, field

from slams_ray.config.checks import check
from slams_ray.config.data import DataConfig
from slams_ray.config.labels import ActivationInferenceConfig, CrfConfig, ThresholdConfig
from slams_ray.config.networks import (
    ActivationConfig,
    ClassifierConfig,
    EncoderConfig,
    SegmentationConfig,
)
from slams_ray.config.place import ComputeConfig, TrackingConfig
from slams_ray.config.search import SearchConfig


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """All eight stages."""

    data: DataConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    activation: ActivationConfig = field(default_factory=ActivationConfig)
    inference: ActivationInferenceConfig = field(default_factory=ActivationInferenceConfig)
    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    crf: CrfConfig = field(default_factory=CrfConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seed: int = 0
    """Seeds initial weights, augmentation and order of every training."""

    def __post_init__(self) -> None:
        for name in ("encoder", "classifier", "activation", "segmentation"):
            batch_size = getattr(self, name).training.batch_size
            check(
                batch_size >= self.compute.train_workers,
                f"{name}.training.batch_size",
                batch_size,
                f"at least an image for each of compute.train_workers "
                f"({self.compute.train_workers})",
            )
