"""Definition of a system: its name, the networks it trains, and the one that makes its maps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from slams_ray.config import BackboneConfig, PipelineConfig
from slams_ray.config.networks import FixedConfig, TrainedConfig
from slams_ray.training.task import Task

Metrics = Mapping[str, float]
PixelLabelKind = Literal["confident", "pseudo"]


def no_warnings(last: Metrics, results: Metrics) -> list[str]:
    """Returns no warnings. For networks whose training has no known way to collapse."""
    return []


def no_check(config: PipelineConfig) -> None:
    """Checks nothing. For systems that need no file of the user."""


@dataclass(frozen=True, kw_only=True)
class NetworkStage:
    """Stage that makes one network of a system.

    Attributes:
        stage: name of the stage, and of its directory in the workspace.
        config: settings of the network, and of its training.
        needs: stages whose checkpoints are needed to build the network.
        pixel_labels: labels that samples need: confident ones of the CAM maps by settings of their
            own, or the pseudo labels of another system's pipeline.
    """

    stage: str
    config: TrainedConfig | FixedConfig
    needs: tuple[str, ...] = ()
    pixel_labels: PixelLabelKind | None = None


@dataclass(frozen=True, kw_only=True)
class FixedNetwork(NetworkStage):
    """Network that is not trained.

    Attributes:
        make: class names -> bytes of its checkpoint.
    """

    config: FixedConfig
    make: Callable[[Sequence[str]], bytes]


@dataclass(frozen=True, kw_only=True)
class NetworkTraining(NetworkStage):
    """Training of one network of a system.

    Attributes:
        label: name of the training in progress lines and metrics.
        backbone: settings of the backbone. The path of a weights file must be absolute.
        make_task: (class names, stage -> bytes of its checkpoint) -> the task to train.
        warnings: (last step metrics, metrics of the trained network) -> warnings of a collapse.
    """

    label: str
    config: TrainedConfig
    backbone: BackboneConfig
    make_task: Callable[[Sequence[str], Mapping[str, bytes]], Task]
    warnings: Callable[[Metrics, Metrics], list[str]] = no_warnings


@dataclass(frozen=True, kw_only=True)
class System:
    """Way to learn maps from image labels.

    Attributes:
        name: name in settings and metrics.
        title: name in figures and tables.
        map_stage: stage whose network makes the maps; None for maps and labels without a network.
        trainings: settings -> the networks to train or to write, in order. Two systems that need
            the same network name the same stage, and the network is made once.
        remedy: what to change where maps are empty; an empty text knows nothing.
        max_logit: settings -> value that inference clips higher logits to; None clips nothing.
        check: settings -> nothing. It raises ConfigError, before the first stage, where a file of
            the user or an optional library is missing.
    """

    name: str
    title: str
    map_stage: str | None
    trainings: Callable[[PipelineConfig], Sequence[NetworkStage]]
    remedy: str = ""
    max_logit: Callable[[PipelineConfig], float | None] = lambda config: None
    check: Callable[[PipelineConfig], None] = no_check
