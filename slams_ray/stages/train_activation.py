"""Stage train_activation: the CAM classifier and the activation network.

The classifier has a record of its own, so that another loss or schedule of the activation network
does not train it again.
"""

from dataclasses import dataclass, replace

from slams_ray.config import ActivationConfig, ClassifierConfig
from slams_ray.data.source import TRAIN, VAL
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Outcome, Result, Workplace, run_stage
from slams_ray.stages.training import (
    LAST,
    read_model,
    resolve_weights,
    train,
    training_settings,
)
from slams_ray.systems.cam import ClassifierTask
from slams_ray.systems.collapse import map_warnings
from slams_ray.systems.slams.activation import ActivationTask

STAGE = "train_activation"
CLASSIFIER = "train_classifier"


@dataclass(frozen=True, kw_only=True)
class ActivationNetworks:
    """The two networks whose maps are compared."""

    cam: Result
    slams: Result


def run(
    place: Workplace,
    classifier: ClassifierConfig,
    config: ActivationConfig,
    seed: int,
    data: PreparedData,
    encoder: Result,
) -> ActivationNetworks:
    classifier = replace(classifier, backbone=resolve_weights(classifier.backbone))
    cam = train_classifier(place, classifier, seed, data)
    upstream = {
        "prepare": data.images_digest(TRAIN, VAL),
        "train_encoder": encoder.record.fingerprint,
    }
    if config.initialise_from_cam:
        upstream["train_classifier"] = cam.record.fingerprint

    def work(attempt: Attempt) -> Outcome:
        task = ActivationTask(
            config,
            classifier.backbone,
            data.description.class_names,
            read_model(encoder),
            read_model(cam) if config.initialise_from_cam else None,
        )
        outcome = train(place, "activation", task, config.training, data, seed, attempt)
        return replace(outcome, warnings=map_warnings(outcome.notes[LAST]))

    slams = run_stage(
        place,
        STAGE,
        training_settings(config)
        | {"seed": seed, "backbone": training_settings(classifier)["backbone"]},
        upstream,
        work,
    )
    return ActivationNetworks(cam=cam, slams=slams)


def train_classifier(
    place: Workplace, config: ClassifierConfig, seed: int, data: PreparedData
) -> Result:
    """The CAM baseline alone."""
    task = ClassifierTask(config, data.description.class_names)
    return run_stage(
        place,
        CLASSIFIER,
        training_settings(config) | {"seed": seed},
        {"prepare": data.images_digest(TRAIN, VAL)},
        lambda attempt: train(place, "classifier", task, config.training, data, seed, attempt),
    )
