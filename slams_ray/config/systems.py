"""Settings of the systems that learn maps beside CAM and SLAMs (docs/method.md, Other systems)."""

from dataclasses import dataclass, field

from slams_ray.config.checks import check
from slams_ray.config.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class RecamConfig:
    """ReCAM, which starts from the CAM classifier (docs/method.md, ReCAM)."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    softmax_weight: float = 1.0
    """Weight of the softmax cross-entropy; published are 1 for VOC and 0.1 for COCO."""

    def __post_init__(self) -> None:
        weight = self.softmax_weight
        check(weight >= 0, "recam.softmax_weight", weight, ">= 0")
