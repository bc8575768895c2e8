"""Recipe for the built-in data set."""

from dataclasses import replace

from slams_ray.config import (
    ActivationConfig,
    ActivationInferenceConfig,
    AffinityConfig,
    BackboneConfig,
    ClassifierConfig,
    ComputeConfig,
    CrfConfig,
    DataConfig,
    EncoderConfig,
    InferenceConfig,
    LossConfig,
    PipelineConfig,
    SegmentationConfig,
    TrainingConfig,
    WalkConfig,
)
from slams_ray.recipes.peer_systems import with_peer_systems


def demo() -> PipelineConfig:
    """Built-in data set: runs all stages in minutes on two CPU cores."""
    backbone = BackboneConfig(name="tiny_resnet", output_stride=8, freeze_batch_norm=False)
    scales = (0.75, 1.0, 1.5)

    def training(epochs: float, learning_rate: float, head_multiplier: float) -> TrainingConfig:
        return TrainingConfig(
            epochs=epochs,
            batch_size=16,
            crop_px=72,
            long_side_px=(56, 88),
            optimizer="adamw",
            learning_rate=learning_rate,
            head_multiplier=head_multiplier,
            weight_decay=1e-3,
            schedule="cosine",
            warmup_steps=20,
            # So that figures depend less on the kind of CPU.
            amp=False,
            checkpoint_every_steps=80,
            log_every_steps=10,
        )

    config = PipelineConfig(
        data=DataConfig(format="synthetic", images_per_shard=40),
        encoder=EncoderConfig(
            backbone=backbone,
            training=training(16, 3e-3, 1),
            embedding_dim=32,
            # Heads must be masked so often that the encoder learns to recognise bodies alone.
            masked_fraction=0.7,
            dimmed_fraction=0.3,
        ),
        classifier=ClassifierConfig(backbone=backbone, training=training(8, 1e-3, 3)),
        activation=ActivationConfig(
            training=training(8, 1e-3, 1),
            fill="image",
            losses=LossConfig(regularization=0.15),
            encoder_input_px=72,
        ),
        # A process that loads images of 80 px would spend more on importing torch.
        # One thread, so that the figures do not depend on the number of cores.
        compute=ComputeConfig(train_threads=1, data_loading_tasks=0),
        inference=ActivationInferenceConfig(scales=scales, max_logit=6.0),
        affinity=AffinityConfig(
            training=replace(
                training(6, 0.02, 1), optimizer="sgd", schedule="poly", weight_decay=1e-4
            ),
            radius=4,
        ),
        walk=WalkConfig(beta=24.0, num_steps=1024),
        crf=CrfConfig(iterations=4, export="voc"),
        segmentation=SegmentationConfig(
            # At stride 8 the network misses small objects (docs/ablations.md).
            backbone=replace(backbone, output_stride=4),
            training=training(12, 3e-3, 1),
            inference=InferenceConfig(scales=scales),
        ),
    )
    return with_peer_systems(config)
