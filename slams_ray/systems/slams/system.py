"""SLAMs: an activation network that learns through a frozen semantic encoder (docs/method.md)."""

from collections.abc import Mapping, Sequence

from slams_ray.config import PipelineConfig
from slams_ray.systems.cam import STAGE as CAM_STAGE
from slams_ray.systems.cam import classifier_training
from slams_ray.systems.collapse import dead_semantics_warnings, map_warnings
from slams_ray.systems.slams.activation import ActivationTask
from slams_ray.systems.slams.encoder import EncoderTask, dead_semantics
from slams_ray.systems.system import Metrics, NetworkTraining, System

ENCODER_STAGE, ACTIVATION_STAGE = "train_encoder", "train_activation"


def trainings(config: PipelineConfig) -> list[NetworkTraining]:
    """Returns the trainings of encoder, classifier and activation network, in this order.

    The CAM classifier is trained only where the activation network starts from it.
    """
    cam = [classifier_training(config)] if config.activation.initialise_from_cam else []
    return [_encoder_training(config), *cam, _activation_training(config)]


def _encoder_training(config: PipelineConfig) -> NetworkTraining:
    encoder = config.encoder
    return NetworkTraining(
        stage=ENCODER_STAGE,
        label="encoder",
        config=encoder,
        backbone=encoder.backbone,
        make_task=lambda class_names, checkpoints: EncoderTask(encoder, class_names),
        warnings=_encoder_warnings,
    )


def _activation_training(config: PipelineConfig) -> NetworkTraining:
    activation, backbone = config.activation, config.classifier.backbone
    starts = (CAM_STAGE,) if activation.initialise_from_cam else ()

    def make_task(class_names: Sequence[str], checkpoints: Mapping[str, bytes]) -> ActivationTask:
        classifier, encoder = checkpoints.get(CAM_STAGE), checkpoints[ENCODER_STAGE]
        return ActivationTask(activation, backbone, class_names, encoder, classifier)

    return NetworkTraining(
        stage=ACTIVATION_STAGE,
        label="activation",
        config=activation,
        backbone=backbone,
        needs=(ENCODER_STAGE, *starts),
        pixel_labels="pseudo" if activation.losses.pseudo_labels else None,
        make_task=make_task,
        warnings=lambda last, results: map_warnings(last),
    )


def _encoder_warnings(last: Metrics, results: Metrics) -> list[str]:
    return dead_semantics_warnings(dead_semantics(results))


SYSTEM = System(
    name="slams",
    title="SLAMs",
    map_stage=ACTIVATION_STAGE,
    trainings=trainings,
    remedy="lower activation.losses.regularization and activation.losses.classification",
    max_logit=lambda config: config.inference.max_logit,
)
