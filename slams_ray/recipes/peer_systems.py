"""Settings of the systems beside CAM and SLAMs, derived from those of the CAM classifier.

All systems share backbone, crops, image sizes, batch size, optimiser and number of epochs with the
classifier. Learning rates keep their published ratio to that of CAM, 0.1 for the backbone and 1 for
the head. All of these papers use a form of SGD whose momentum has nearly no effect.

Systems that learn a tenth as fast as CAM start from the CAM classifier, as SLAMs does with
pretrained weights: from ImageNet weights their papers train for far more steps than the classifier
gets here. Without pretrained weights all systems start from it, since maps must show something
before tiles and views can be compared.
"""

from dataclasses import replace

from slams_ray.config import (
    AmnConfig,
    ClimsConfig,
    CpnConfig,
    MctformerConfig,
    OccseConfig,
    PipelineConfig,
    PuzzleConfig,
    RecamConfig,
    SeamConfig,
)

SMALL_CROP_PX = 256
"""Crops up to this side have too few cells for the published small view of SEAM, regions of CPN and
weight of Puzzle-CAM."""
PATCH_PX = 16
"""Side of a patch of DeiT-S/16."""


def with_peer_systems(config: PipelineConfig) -> PipelineConfig:
    """Returns the settings of a recipe with those of the other systems."""
    training = config.classifier.training
    tenth = replace(training, learning_rate=training.learning_rate / 10)
    backbone = config.classifier.backbone
    from_cam = backbone.weights == "none"
    is_small = training.crop_px <= SMALL_CROP_PX
    tiles_px = 2 * backbone.output_stride
    # Published: 0.01, and 10 times that for new layers.
    correlation = replace(tenth, head_multiplier=10)
    # Published: Adam with 5e-6, and 20 times that for new layers, in 3,300 steps. Recipes with
    # small crops take some hundred. A backbone of the CAM classifier learns as that did.
    published_amn = replace(
        training,
        optimizer="adamw",
        learning_rate=5e-5 if is_small else 5e-6,
        head_multiplier=20,
        weight_decay=1e-4,
    )
    return replace(
        config,
        # Published is a far smaller rate, in longer trainings than these recipes have. Here the new
        # layer learns as fast as the classifier did, and everything else a tenth as fast.
        recam=RecamConfig(training=replace(tenth, head_multiplier=10)),
        # Published: 0.01 for all weights alike.
        occse=OccseConfig(training=replace(tenth, head_multiplier=1), initialise_from_cam=True),
        # Published: CAM's rate, and 4 times the mean over VOC's 20 classes; ours is the mean over
        # the present ones, about 1.5. Tiles must be multiples of the stride. In tiles of a few
        # cells most of the difference comes from their borders.
        puzzle=PuzzleConfig(
            training=replace(
                tenth if from_cam else training,
                crop_px=-(-training.crop_px // tiles_px) * tiles_px,
            ),
            initialise_from_cam=from_cam,
            reconstruction=0.5 if is_small else 0.3,
        ),
        seam=SeamConfig(
            training=correlation,
            initialise_from_cam=True,
            scale=0.5 if is_small else 0.3,
        ),
        cpn=CpnConfig(
            training=correlation,
            initialise_from_cam=True,
            num_regions=81 if is_small else 300,
        ),
        amn=AmnConfig(
            training=training if from_cam else published_amn, initialise_from_cam=from_cam
        ),
        # Ours, as the activation network of SLAMs, which also starts from a trained head.
        clims=ClimsConfig(
            training=replace(training, learning_rate=training.learning_rate / 20, head_multiplier=1)
        ),
        # Published: AdamW with 6.25e-5 at batch 64. Crops are of whole patches.
        mctformer=MctformerConfig(
            training=replace(
                training,
                crop_px=-(-training.crop_px // PATCH_PX) * PATCH_PX,
                optimizer="adamw",
                learning_rate=6.25e-5,
                head_multiplier=1,
                weight_decay=0.05,
                schedule="cosine",
            )
        ),
    )
