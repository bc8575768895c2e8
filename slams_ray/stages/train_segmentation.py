"""Stage train_segmentation: trains the segmentation network on pseudo labels."""

from slams_ray.config import SegmentationConfig
from slams_ray.data.source import TRAIN
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
    labels = ShardColumns(
        directory=pseudo_labels_dir(labelled.output_dir), columns=("pseudo_label",)
    )
    this = TaskToTrain(
        label="segmentation",
        task=SegmentationTask(config, data.description.class_names, data.max_side_px),
        config=config.training,
        seed=seed,
        more_sources=[labels],
    )
    settings = network_settings(config)
    for name in ("inference", "crf"):
        settings.pop(name)  # They do not change the network.
    settings |= {"backbone": backbone_settings(config.backbone), "seed": seed}
    return run_stage(
        context,
        STAGE,
        settings,
        {"prepare": data.images_digest(TRAIN), "refine": labelled.record.notes[LABELS_DIGEST]},
        lambda attempt: train(context, this, data, attempt),
    )
