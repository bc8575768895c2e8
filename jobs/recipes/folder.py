from dataclasses import replace

from slams_ray.config import (
    ActivationConfig,
    BackboneConfig,
    ClassifierConfig,
    DataConfig,
    EncoderConfig,
    PipelineConfig,
    SegmentationConfig,
    TrainingConfig,
)


def folder(root: str = "data/photos") -> PipelineConfig:
    """Your own photographs: root/images, root/labels.csv, and root/masks where there are any.

    MobileNetV2 with ImageNet weights and small crops, for one GPU or a patient CPU. With
    --data.format voc or coco it serves small sets of those layouts as well.
    """
    backbone = BackboneConfig(
        name="mobilenet_v2", weights="MobileNet_V2_Weights.IMAGENET1K_V1", output_stride=16
    )
    training = TrainingConfig(
        epochs=10,
        batch_size=16,
        crop_px=224,
        long_side_px=(192, 320),
        learning_rate=2e-3,
        checkpoint_every_steps=50,
        log_every_steps=10,
    )
    return PipelineConfig(
        data=DataConfig(format="folder", root=root, max_side_px=512, images_per_shard=32),
        encoder=EncoderConfig(backbone=backbone, training=replace(training, epochs=20)),
        classifier=ClassifierConfig(backbone=backbone, training=training),
        activation=ActivationConfig(training=replace(training, learning_rate=5e-4)),
        segmentation=SegmentationConfig(
            backbone=backbone, training=replace(training, epochs=20, head_multiplier=5)
        ),
    )
