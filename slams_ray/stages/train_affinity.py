"""Stage train_affinity: images and confident labels to the edge network that the walk follows."""

from dataclasses import replace

from slams_ray import storage
from slams_ray.config import AffinityConfig, BackboneConfig
from slams_ray.data.source import TRAIN
from slams_ray.networks.weights import NO_WEIGHTS
from slams_ray.refinement.walk.training import AffinityTask, edge_warnings
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.refine import LABELS_DIGEST, pseudo_labels_dir
from slams_ray.stages.stage import Attempt, Outcome, Result, StageContext, run_stage
from slams_ray.stages.training import (
    LAST,
    MODEL_NAME,
    TaskToTrain,
    backbone_settings,
    network_settings,
    train,
)
from slams_ray.training.data_loading import ShardColumns

STAGE = "train_affinity"
LABELS_STAGE = "affinity_labels"
"""The refinement whose confident labels teach the network."""


def run(
    context: StageContext,
    config: AffinityConfig,
    backbone: BackboneConfig,
    seed: int,
    data: PreparedData,
    labels: Result,
    classifier: Result | None,
) -> Result:
    """Trains the edge network.

    Args:
        labels: the finished `LABELS_STAGE`.
        classifier: the CAM classifier, whose backbone is taken where `backbone` names no weights.
    """
    inputs = {
        "prepare": data.images_digest(TRAIN),
        LABELS_STAGE: labels.record.notes[LABELS_DIGEST],
    }
    if backbone.weights == NO_WEIGHTS:
        assert classifier is not None, "PipelineConfig asks for one"
        inputs["train_classifier"] = classifier.record.fingerprint
    settings = network_settings(config) | {"seed": seed, "backbone": backbone_settings(backbone)}
    for name in ("pair", "margin"):
        settings.pop(name)  # The labels already depend on them.

    def work(attempt: Attempt) -> Outcome:
        start = None
        if "train_classifier" in inputs and classifier is not None:
            start = storage.read_bytes(classifier.path(MODEL_NAME))
        task = AffinityTask(
            config.training,
            backbone,
            data.description.class_names,
            radius=config.radius,
            averaging=config.averaging,
            classifier=start,
        )
        columns = ShardColumns(
            directory=pseudo_labels_dir(labels.output_dir), columns=("pseudo_label",)
        )
        this = TaskToTrain(
            label="affinity",
            task=task,
            config=config.training,
            seed=seed,
            more_sources=[columns],
        )
        outcome = train(context, this, data, attempt)
        return replace(outcome, warnings=edge_warnings(outcome.notes[LAST]))

    return run_stage(context, STAGE, settings, inputs, work)
