"""Recipe that tells whether a cluster works."""

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
    TrackingConfig,
    TrainingConfig,
)
from slams_ray.recipes.peer_systems import with_peer_systems


def smoke() -> PipelineConfig:
    """Test of a cluster: runs all stages on 32 generated images, with a few steps each.

    Its scores mean nothing.
    """
    backbone = BackboneConfig(name="tiny_resnet", output_stride=8, freeze_batch_norm=False)
    training = TrainingConfig(
        epochs=1,
        batch_size=4,
        crop_px=48,
        long_side_px=(48, 64),
        optimizer="adamw",
        learning_rate=1e-3,
        head_multiplier=1,
        checkpoint_every_steps=2,
        log_every_steps=1,
    )
    config = PipelineConfig(
        data=DataConfig(
            format="synthetic",
            synthetic_train_images=24,
            synthetic_val_images=8,
            images_per_shard=6,
        ),
        encoder=EncoderConfig(backbone=backbone, training=training, embedding_dim=8),
        classifier=ClassifierConfig(backbone=backbone, training=training),
        activation=ActivationConfig(
            training=training,
            # Covers the start from CAM and every loss.
            initialise_from_cam=True,
            losses=LossConfig(foreground=1.0),
            encoder_input_px=48,
        ),
        inference=ActivationInferenceConfig(scales=(1.0,)),
        affinity=AffinityConfig(training=training, radius=4),
        crf=CrfConfig(iterations=1, export="voc"),
        segmentation=SegmentationConfig(
            backbone=backbone,
            training=replace(training, epochs=2),
            inference=InferenceConfig(scales=(1.0,)),
        ),
        # One thread leaves a core for another training.
        compute=ComputeConfig(train_threads=1, data_loading_tasks=0),
        tracking=TrackingConfig(num_examples=2),
    )
    return with_peer_systems(config)
