"""Recipe for your own photographs."""

from dataclasses import replace

from slams_ray.config import (
    ActivationConfig,
    ActivationInferenceConfig,
    AffinityConfig,
    BackboneConfig,
    ClassifierConfig,
    CrfConfig,
    DataConfig,
    EncoderConfig,
    InferenceConfig,
    LossConfig,
    PipelineConfig,
    RefinementConfig,
    SegmentationConfig,
    TrainingConfig,
)
from slams_ray.recipes.peer_systems import with_peer_systems


def folder(root: str = "data/photos") -> PipelineConfig:
    """Your own photographs: root/images, root/labels.csv, and optional root/masks.

    It uses MobileNetV2 with ImageNet weights and small crops, for one GPU, or for a CPU and some
    hundred photographs. With --data.format voc or coco it reads small sets in those layouts; a voc
    tree without Annotations needs --data.voc-labels-from masks. Another network, or random weights,
    need another number of frozen blocks: --classifier.backbone.frozen-blocks.
    """
    backbone = BackboneConfig(
        name="mobilenet_v2", weights="MobileNet_V2_Weights.IMAGENET1K_V1", output_stride=16
    )
    training = TrainingConfig(
        epochs=8,
        batch_size=16,
        crop_px=160,
        long_side_px=(160, 256),
        learning_rate=2e-3,
        checkpoint_every_steps=50,
        log_every_steps=10,
    )
    config = PipelineConfig(
        data=DataConfig(format="folder", root=root, max_side_px=512, images_per_shard=32),
        encoder=EncoderConfig(
            backbone=replace(backbone, output_stride=32),
            training=replace(training, epochs=12, crop_px=128, long_side_px=(128, 192)),
            embedding_dim=64,
        ),
        # Steps are shorter, and CAM and SLAMs share these blocks in inference. Labels of three
        # random seeds are no worse than where all blocks learn (docs/results.md).
        classifier=ClassifierConfig(
            backbone=replace(backbone, frozen_blocks=14), training=training
        ),
        activation=ActivationConfig(
            training=replace(
                training, epochs=10, learning_rate=1e-3, head_multiplier=1, weight_decay=1e-4
            ),
            initialise_from_cam=True,
            # Its labels are better than CAM's, and so are those of SLAMs then (docs/results.md).
            pseudo_labels_of="recam",
            # With sigmoid masks, grey fill and the published loss weights, SLAMs is worse than CAM.
            mask="normalised",
            fill="image",
            binarisation_width=0.1,
            losses=LossConfig(
                background=2.0, regularization=0.02, equivariance=0.1, pseudo_labels=1.0
            ),
            # These three shorten a step; the seeds stay within their spread (docs/ablations.md).
            encoder_input_px=80,
            masked_classes=1,
            equivariance_scales=(0.5,),
        ),
        inference=ActivationInferenceConfig(scales=(0.35, 0.5, 0.75, 1.0, 1.5)),
        refinement=RefinementConfig(steps=("walk", "crf")),
        affinity=AffinityConfig(
            training=replace(
                training,
                epochs=7,
                batch_size=8,
                crop_px=192,
                long_side_px=(384, 640),
                learning_rate=0.02,
                head_multiplier=1,
                weight_decay=1e-4,
            ),
            radius=8,
        ),
        crf=CrfConfig(iterations=5),
        segmentation=SegmentationConfig(
            backbone=backbone,
            # With 8 epochs at 160 px the network was below the labels of its own training images.
            training=replace(
                training, epochs=20, crop_px=192, long_side_px=(192, 320), head_multiplier=5
            ),
            inference=InferenceConfig(scales=(0.35, 0.5, 0.75)),
        ),
    )
    return with_peer_systems(config)
