"""Stage train_segmentation: trains the segmentation network on pseudo labels, and on masks."""

from slams_ray.config import SegmentationConfig
from slams_ray.data.source import TRAIN
from slams_ray.errors import ConfigError
from slams_ray.segmentation.training import SegmentationTask
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.refine import LABELS_DIGEST, pseudo_labels_dir
from slams_ray.stages.stage import Result, StageContext, run_stage
from slams_ray.stages.training import TaskToTrain, backbone_settings, network_settings, train
from slams_ray.training.data_loading import ShardColumns

STAGE = "train_segmentation"


def run(
    context: StageContext,
    config: SegmentationConfig,
    seed: int,
    data: PreparedData,
    labelled: Result,
) -> Result:
    """Trains the segmentation network.

    Args:
        seed: random seed.
        labelled: stage that made or imported the pseudo labels.
    """
    labels = [
        ShardColumns(directory=pseudo_labels_dir(labelled.output_dir), columns=("pseudo_label",))
    ]
    inputs = {
        "prepare": data.images_digest(TRAIN),
        "refine": labelled.record.notes[LABELS_DIGEST],
    }
    if config.learn_masks:
        labels.append(ShardColumns(directory=data.images(TRAIN), columns=("mask",)))
        inputs["masks"] = data.scores_digest(TRAIN)
    this = TaskToTrain(
        label="segmentation",
        task=SegmentationTask(config, data.description.class_names, data.max_side_px),
        config=config.training,
        seed=seed,
        more_sources=labels,
    )
    settings = network_settings(config)
    for name in ("inference", "crf", "learn_masks"):
        settings.pop(name)  # They do not change the network, but for masks, which are an input.
    settings |= {"backbone": backbone_settings(config.backbone), "seed": seed}
    return run_stage(
        context,
        STAGE,
        settings,
        inputs,
        lambda attempt: train(context, this, data, attempt),
    )


def check_masks(data: PreparedData) -> None:
    """Raises ConfigError if no training photograph has a mask that the network could learn."""
    if not data.num_masks[TRAIN]:
        raise ConfigError(
            "segmentation.learn_masks is True, but no training photograph has a mask: add masks, "
            "or leave the setting out"
        )
