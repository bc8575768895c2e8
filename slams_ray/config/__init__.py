"""Every setting of the pipeline: frozen dataclasses, one per concern, checked where they are built.

Field docstrings are the command-line help. Lists of values that recipes choose stand in
`jobs/recipes`.
"""

from slams_ray.config.compute import ComputeConfig, TrackingConfig
from slams_ray.config.data import DataConfig
from slams_ray.config.labels import (
    ActivationInferenceConfig,
    CrfConfig,
    InferenceConfig,
    ThresholdConfig,
)
from slams_ray.config.networks import (
    ActivationConfig,
    ClassifierConfig,
    EncoderConfig,
    LossConfig,
    SegmentationConfig,
)
from slams_ray.config.pipeline import PipelineConfig
from slams_ray.config.refinement import (
    AffinityConfig,
    PixelAdaptiveConfig,
    RefinementConfig,
    WalkConfig,
)
from slams_ray.config.search import SearchConfig
from slams_ray.config.training import BackboneConfig, TrainingConfig

__all__ = [
    "ActivationConfig",
    "ActivationInferenceConfig",
    "AffinityConfig",
    "BackboneConfig",
    "ClassifierConfig",
    "ComputeConfig",
    "CrfConfig",
    "DataConfig",
    "EncoderConfig",
    "InferenceConfig",
    "LossConfig",
    "PipelineConfig",
    "PixelAdaptiveConfig",
    "RefinementConfig",
    "SearchConfig",
    "SegmentationConfig",
    "ThresholdConfig",
    "TrackingConfig",
    "TrainingConfig",
    "WalkConfig",
]
