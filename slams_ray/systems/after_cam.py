"""Systems that train one network of their own, which builds on the CAM classifier."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from torch import nn

from slams_ray.config import BackboneConfig, PipelineConfig
from slams_ray.config.networks import TrainedConfig
from slams_ray.errors import ConfigError
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.checkpoint import load_network
from slams_ray.networks.weights import load_backbone_weights
from slams_ray.systems.cam import STAGE as CAM_STAGE
from slams_ray.systems.cam import classifier_training
from slams_ray.systems.classification import ImageLabelTask
from slams_ray.systems.collapse import ADVICE, map_warnings
from slams_ray.systems.system import NetworkTraining, PixelLabelKind, System
from slams_ray.training.task import Task

Config = TypeVar("Config", bound=TrainedConfig)


class AfterCamTask(ImageLabelTask, Generic[Config]):
    """Base of the tasks that train one network, and may build on the CAM classifier.

    Args:
        backbone: settings of the backbone, the same as the CAM classifier's.
        classifier: bytes of the CAM classifier's checkpoint; None if the task needs none.
    """

    def __init__(
        self,
        config: Config,
        backbone: BackboneConfig,
        class_names: Sequence[str],
        classifier: bytes | None,
    ) -> None:
        super().__init__(config.training, class_names)
        self.config = config
        self.backbone = backbone
        self.classifier = classifier
        self.classifier_architecture: dict[str, Any] = {
            "backbone_name": backbone.name,
            "output_stride": backbone.output_stride,
            "num_classes": self.num_classes,
            "dilate": backbone.dilate,
        }
        self.architecture = dict(self.classifier_architecture)

    def trained_classifier(self) -> ActivationNetwork:
        """Returns the CAM classifier.

        Raises:
            ArtifactError: it was trained for other classes.
            ConfigError: it has another architecture than `backbone`.
        """
        assert self.classifier is not None
        found = load_network(self.classifier, "classifier", "activation_network", self.class_names)
        network = ActivationNetwork(**self.classifier_architecture)
        copy_weights(found, network)
        return network

    def start(self, from_classifier: bool) -> ActivationNetwork:
        """Returns the CAM classifier, or a new network on the weights of the backbone."""
        if from_classifier:
            return self.trained_classifier()
        network = ActivationNetwork(**self.classifier_architecture)
        load_backbone_weights(network.backbone, self.backbone.weights)
        return network


def copy_weights(trained: nn.Module, network: nn.Module) -> None:
    """Copies weights between networks of one architecture.

    Raises:
        ConfigError: the architectures differ.
    """
    try:
        network.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            "the CAM classifier has another architecture than the network that starts from it: "
            f"give both the same classifier.backbone and train the classifier again ({error})"
        ) from error


def system_after_cam(
    name: str,
    title: str,
    make_task: Callable[[Any, BackboneConfig, Sequence[str], bytes | None], Task],
    needs_classifier: Callable[[Any], bool] = lambda config: True,
    pixel_labels: PixelLabelKind | None = None,
) -> System:
    """Returns a system whose settings are the field `name` of the pipeline's settings.

    Its network starts from the CAM classifier, unless its settings say `initialise_from_cam` False.

    Args:
        make_task: (settings, backbone, class names, classifier or None) -> the task.
        needs_classifier: settings -> whether the task needs the trained CAM classifier.
        pixel_labels: see `NetworkTraining`.
    """
    stage = f"train_{name}"

    def trainings(config: PipelineConfig) -> list[NetworkTraining]:
        own = getattr(config, name)
        first = [classifier_training(config)] if needs_classifier(own) else []
        backbone = config.classifier.backbone
        if getattr(own, "initialise_from_cam", True):
            # Statistics of the trained classifier stay: all of these systems were published so.
            backbone = replace(backbone, freeze_batch_norm=True)

        def make(class_names: Sequence[str], checkpoints: Mapping[str, bytes]) -> Task:
            return make_task(own, backbone, class_names, checkpoints.get(CAM_STAGE))

        training = NetworkTraining(
            stage=stage,
            label=name,
            config=own,
            backbone=backbone,
            needs=tuple(training.stage for training in first),
            pixel_labels=pixel_labels,
            make_task=make,
            warnings=lambda last, results: map_warnings(last, f"{title} network", advice(name)),
        )
        return [*first, training]

    return System(name=name, title=title, map_stage=stage, trainings=trainings)


def advice(name: str) -> dict[str, str]:
    """Returns kind of collapse -> which settings of the system to change."""
    return dict.fromkeys(
        ADVICE,
        f"its maps say nothing about where objects are: lower {name}.training.learning_rate, or "
        "train longer",
    )
