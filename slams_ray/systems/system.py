"""What a system is: a name, the networks it trains, and the one that makes its maps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slams_ray.config import BackboneConfig, PipelineConfig
from slams_ray.config.networks import TrainedConfig
from slams_ray.training.task import Task

Metrics = Mapping[str, float]


def no_warnings(last: Metrics, results: Metrics) -> list[str]:
    """For a network whose training has no known way to collapse."""
    return []


@dataclass(frozen=True, kw_only=True)
class NetworkTraining:
    """One network of a system and how it is trained.

    Attributes:
        stage: name of its stage, which is also its directory in the workspace.
        label: names the training in progress lines and metrics.
        config: settings of the network and of its training.
        backbone: the backbone; its weights file is an absolute path.
        needs: stages whose checkpoints the network is built from.
        make_task: (class names, stage -> bytes of its checkpoint) -> the task to train.
        warnings: (last step metrics, metrics of the trained network) -> what looks like a collapse.
    """

    stage: str
    label: str
    config: TrainedConfig
    backbone: BackboneConfig
    make_task: Callable[[Sequence[str], Mapping[str, bytes]], Task]
    needs: tuple[str, ...] = ()
    warnings: Callable[[Metrics, Metrics], list[str]] = no_warnings


@dataclass(frozen=True, kw_only=True)
class System:
    """A way to learn maps from image labels.

    Attributes:
        name: as settings and metrics spell it.
        title: as figures and tables spell it.
        map_stage: the stage whose network makes the maps.
        trainings: settings -> the networks to train, in order. Systems that need the same network
            name the same stage, and it is trained once.
        max_logit: settings -> higher logits count as this value in inference; None leaves them.
    """

    name: str
    title: str
    map_stage: str
    trainings: Callable[[PipelineConfig], list[NetworkTraining]]
    max_logit: Callable[[PipelineConfig], float | None] = lambda config: None
