"""All settings of the pipeline, as frozen dataclasses that check their values when built.

Field docstrings are the command-line help. `slams_ray/recipes` chooses the values that belong
together; docs/ablations.md has the measurements behind the defaults.
"""

from slams_ray.config.compute import ComputeConfig, TrackingConfig
from slams_ray.config.data import DataConfig
from slams_ray.config.imported import ImportedConfig
from slams_ray.config.labels import (
    ActivationInferenceConfig,
    CrfConfig,
    InferenceConfig,
    PredictionCrfConfig,
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
from slams_ray.config.systems import (
    AmnConfig,
    ClimsConfig,
    ClipEsConfig,
    CpnConfig,
    MctformerConfig,
    OccseConfig,
    PuzzleConfig,
    RecamConfig,
    SeamConfig,
)
from slams_ray.config.training import BackboneConfig, TrainingConfig

__all__ = [
    "ActivationConfig",
    "ActivationInferenceConfig",
    "AffinityConfig",
    "AmnConfig",
    "BackboneConfig",
    "ClassifierConfig",
    "ClimsConfig",
    "ClipEsConfig",
    "ComputeConfig",
    "CpnConfig",
    "CrfConfig",
    "DataConfig",
    "EncoderConfig",
    "ImportedConfig",
    "InferenceConfig",
    "LossConfig",
    "MctformerConfig",
    "OccseConfig",
    "PipelineConfig",
    "PixelAdaptiveConfig",
    "PredictionCrfConfig",
    "PuzzleConfig",
    "RecamConfig",
    "RefinementConfig",
    "SeamConfig",
    "SearchConfig",
    "SegmentationConfig",
    "ThresholdConfig",
    "TrackingConfig",
    "TrainingConfig",
    "WalkConfig",
]
