"""Recipe for MS COCO 2014."""

from dataclasses import replace

from slams_ray.config import DataConfig, PipelineConfig
from slams_ray.recipes.voc12 import voc12


def coco14(root: str = "data/coco2014") -> PipelineConfig:
    """MS COCO 2014: the 82,081 training and 40,137 val images that have an instance, 80 classes.

    It is intended for 8 GPUs (compute.train_workers 8). MCTformer published 42.0 mIoU on val;
    nothing has been measured with this code yet.
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
        encoder=replace(base.encoder, embedding_dim=64),
        segmentation=replace(
            base.segmentation,
            training=replace(
                base.segmentation.training, epochs=12, crop_px=481, learning_rate=3.2e-4
            ),
        ),
    )
