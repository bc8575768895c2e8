"""Stage train_segmentation: images and pseudo labels to the segmentation network."""

from dataclasses import replace

from slams_ray.config import SegmentationConfig
from slams_ray.data.source import TRAIN
from slams_ray.segmentation.training import SegmentationTask
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.refine import LABELS_DIGEST, pseudo_labels_dir
from slams_ray.stages.stage import Result, Workplace, run_stage
from slams_ray.stages.training import resolve_weights, train, training_settings
from slams_ray.training.data_loading import ShardColumns

STAGE = "train_segmentation"


def run(
    place: Workplace, config: SegmentationConfig, seed: int, data: PreparedData, refined: Result
) -> Result:
    config = replace(config, backbone=resolve_weights(config.backbone))
    task = SegmentationTask(config, data.description.class_names, data.max_side_px)
    labels = ShardColumns(
        directory=pseudo_labels_dir(refined.output_dir), columns=("pseudo_label",)
    )
    settings = {k: v for k, v in training_settings(config).items() if k != "inference"}
    return run_stage(
        place,
        STAGE,
        settings | {"seed": seed},
        {"prepare": data.images_digest(TRAIN), "refine": refined.record.notes[LABELS_DIGEST]},
        lambda attempt: train(
            place, "segmentation", task, config.training, data, seed, attempt, [labels]
        ),
    )
