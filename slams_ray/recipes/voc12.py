"""Recipe for PASCAL VOC 2012."""

from dataclasses import replace

from slams_ray.config import (
    ActivationConfig,
    ActivationInferenceConfig,
    AffinityConfig,
    BackboneConfig,
    ClassifierConfig,
    DataConfig,
    EncoderConfig,
    LossConfig,
    PipelineConfig,
    RefinementConfig,
    SegmentationConfig,
    TrainingConfig,
)
from slams_ray.recipes.peer_systems import with_peer_systems

RESNET50 = BackboneConfig(name="resnet50", weights="ResNet50_Weights.IMAGENET1K_V2")
RESNET101 = BackboneConfig(name="resnet101", weights="ResNet101_Weights.IMAGENET1K_V2")


def voc12(root: str = "data/VOC2012") -> PipelineConfig:
    """PASCAL VOC 2012: trainaug (10,582) trains, train (1,464) chooses the threshold, val scores.

    It is intended for one GPU with at least 24 GB. The goals, from published ResNet-50 results, are
    mIoU 48 for CAM seeds, 58 for SLAMs seeds, and 70 for the network on val. Nothing has been
    measured with this code yet.
    """
    # With momentum 0.9, VOC photographs trained well at 2e-3 and did not learn at 0.01.
    weak = TrainingConfig(
        epochs=10,
        batch_size=16,
        crop_px=448,
        long_side_px=(320, 640),
        learning_rate=2e-3,
        weight_decay=1e-4,
    )
    config = PipelineConfig(
        data=DataConfig(
            format="voc",
            root=root,
            train_split="trainaug",
            score_list="train",
            val_split="val",
            voc_mask_dir="SegmentationClassAug",
        ),
        encoder=EncoderConfig(
            backbone=RESNET50,
            training=replace(
                weak,
                epochs=40,
                batch_size=64,
                crop_px=224,
                long_side_px=(224, 448),
                weight_decay=5e-4,
            ),
            embedding_dim=256,
        ),
        classifier=ClassifierConfig(backbone=RESNET50, training=weak),
        # Published: 5e-3 at an effective momentum of 0. Here momentum is 0.9, so a tenth of it.
        activation=ActivationConfig(
            training=replace(weak, epochs=15, learning_rate=5e-4),
            initialise_from_cam=True,
            losses=LossConfig(foreground=1.0),
        ),
        inference=ActivationInferenceConfig(),
        refinement=RefinementConfig(steps=("walk", "crf")),
        # IRN: batch 32, 3 epochs, 512 px. Its learning rate is for an effective momentum near 0.
        affinity=AffinityConfig(
            training=replace(
                weak,
                epochs=3,
                batch_size=32,
                crop_px=512,
                long_side_px=(250, 750),
                learning_rate=0.01,
                head_multiplier=1,
            )
        ),
        segmentation=SegmentationConfig(
            backbone=replace(RESNET101, output_stride=8),
            # Published: batch 10 at 2.5e-4. A batch of 16 divides among 2, 4, 8 and 16 workers.
            training=TrainingConfig(
                epochs=25,
                batch_size=16,
                crop_px=321,
                long_side_px=(250, 1000),
                learning_rate=4e-4,
                weight_decay=5e-4,
            ),
        ),
    )
    return with_peer_systems(config)
