"""Stage train_segmentation: trains the segmentation network on pseudo labels, and on masks."""

from dataclasses import replace
from functools import partial

from slams_ray.config import SegmentationConfig
from slams_ray.data.source import TRAIN
from slams_ray.segmentation.training import SegmentationTask
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.refine import LABELS_DIGEST, pseudo_labels_dir
from slams_ray.stages.stage import Attempt, Outcome, Result, StageContext, run_stage
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
        settings.pop(name)  # Inference and CRF do not change the network; masks are an input.
    settings |= {"backbone": backbone_settings(config.backbone), "seed": seed}
    return run_stage(
        context,
        STAGE,
        settings,
        inputs,
        partial(_train, context, this, data, config.learn_masks),
    )


def _train(
    context: StageContext,
    this: TaskToTrain,
    data: PreparedData,
    learns_masks: bool,
    attempt: Attempt,
) -> Outcome:
    outcome = train(context, this, data, attempt)
    return replace(outcome, warnings=mask_warnings(data) if learns_masks else ())


def mask_warnings(data: PreparedData) -> list[str]:
    """Returns what masks that the network learnt make of its labels and of its score."""
    warnings = []
    if data.num_masks[TRAIN] == data.num_images(TRAIN):
        warnings.append(
            "every training photograph has a mask, so the network learnt no pseudo label: "
            "--system masks gives this network without maps"
        )
    if data.scored_role == TRAIN:
        warnings.append(
            "the network is scored on masks that it learnt, so its score is too high: name val "
            "photographs"
        )
    return warnings
