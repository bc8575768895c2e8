"""Work of a process that turns maps into labels, or scores such labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from slams_ray.config import CrfConfig
from slams_ray.data.schema import DatasetDescription
from slams_ray.refinement.crf.kernels import kernels_of
from slams_ray.refinement.pseudo_label import ConfidentPair, Refinement
from slams_ray.refinement.shard_work import RefineMapper
from slams_ray.refinement.trial import ScoreMapper
from slams_ray.runtime.cluster import assigned_device


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Settings of a process that refines.

    Attributes:
        export_dir: directory for palette PNGs; None exports nothing.
    """

    description: DatasetDescription
    system: str
    config: CrfConfig
    pair: ConfidentPair
    export_dir: str | None


def make_mapper(settings: LabelSettings) -> RefineMapper:
    """Builds the mapper. It runs once in every process that refines."""
    return RefineMapper(
        settings.description,
        settings.system,
        settings.pair,
        on_own_device(make_refinement(settings.config)),
        settings.export_dir,
        export_images=settings.config.export == "voc",
    )


def make_scorer(
    column: str, refinement: Refinement, values: Sequence[float], num_all_classes: int
) -> ScoreMapper:
    """Builds the mapper that scores trials. It runs once in every process that scores.

    Args:
        column: column of the maps.
        values: thresholds, or alphas in the power form.
    """
    return ScoreMapper(column, on_own_device(refinement), values, num_all_classes)


def on_own_device(refinement: Refinement) -> Refinement:
    """Returns the refinement on the device that Ray assigned to this process."""
    return replace(refinement, device=assigned_device())


def make_refinement(config: CrfConfig) -> Refinement:
    """Returns the settings of refinement apart from the threshold."""
    return Refinement(
        form=config.form,
        gt_prob=config.gt_prob,
        iterations=config.iterations,
        cam_power=config.cam_power,
        backend=config.backend,
        kernels=kernels_of(config),
    )
