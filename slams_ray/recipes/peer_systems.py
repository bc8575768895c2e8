"""Settings of the systems beside CAM and SLAMs, derived from those of the CAM classifier.

All systems share backbone, crops, image sizes, batch size, optimiser and number of epochs with the
classifier. The published learning rates are relative to the published one of CAM: 0.1 for the
backbone, in a form of SGD whose momentum has nearly no effect.
"""

from dataclasses import replace

from slams_ray.config import PipelineConfig, RecamConfig


def with_peer_systems(config: PipelineConfig) -> PipelineConfig:
    """Returns the settings of a recipe with those of the other systems."""
    training = config.classifier.training
    return replace(
        config,
        # The new layer learns as fast as the classifier did, everything trained before a tenth.
        recam=RecamConfig(
            training=replace(
                training, learning_rate=training.learning_rate / 10, head_multiplier=10
            )
        ),
    )
