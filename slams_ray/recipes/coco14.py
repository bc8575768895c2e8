"""Recipe for MS COCO 2014."""

from dataclasses import replace

from slams_ray.config import DataConfig, PipelineConfig
from slams_ray.recipes.voc12 import voc12


def coco14(root: str = "data/coco2014") -> PipelineConfig:
    """MS COCO 2014: the 82,081 training and 40,137 val images that have an instance, 80 classes.

    It is intended for 8 GPUs (compute.train_workers 8), and fits one with
    training.accumulation_steps. Nothing has been measured with this code yet. docs/recipes.md has
    the origin of each setting, and published figures with their backbones.
    """
    base = voc12()
    return replace(
        base,
        data=DataConfig(
            format="coco",
            root=root,
            train_split="train2014",
            val_split="val2014",
            crowd="background",
        ),
        # Ours: 12,800 steps of 64 images, twice those of voc12.
        encoder=replace(
            base.encoder,
            embedding_dim=64,
            training=replace(base.encoder.training, epochs=10),
        ),
        # AMN and CLIMS train the classifier on COCO for as many epochs as on VOC.
        classifier=replace(base.classifier, training=replace(base.classifier.training, epochs=5)),
        # 5 of 60 epochs of 1,283 steps.
        mctformer=replace(
            base.mctformer, training=replace(base.mctformer.training, warmup_steps=6413)
        ),
        recam=replace(base.recam, softmax_weight=0.1),  # published for COCO
        # Published is a mean over all 80 classes; ours is over the present ones, about 3.
        puzzle=replace(base.puzzle, reconstruction=0.15),
        # The authors' program. Its 85 texts of backgrounds for COCO are not here.
        clims=replace(
            base.clims,
            words=("person=player",),
            foreground=2.0,
            complement=14.0,
            background=2.0,
            background_threshold=0.285,
        ),
        clip_es=replace(base.clip_es, words=(), box_share=0.7),  # the authors' program
        # As for the final network: COCO's images are larger than VOC's.
        affinity=replace(
            base.affinity, training=replace(base.affinity.training, long_side_px=(320, 960))
        ),
        # Ours: 25,700 steps of 16 images. CLIMS trains for 15 epochs.
        activation=replace(base.activation, training=replace(base.activation.training, epochs=5)),
        # Published: 100,000 steps of 10 images of 481 px, which are 12.2 epochs.
        segmentation=replace(
            base.segmentation,
            training=replace(
                base.segmentation.training,
                epochs=12.183,
                crop_px=481,
                long_side_px=(320, 960),
                learning_rate=2e-4,
            ),
        ),
    )
