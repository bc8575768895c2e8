"""Sets of maps that trials of a search choose from: scales of inference, and walks over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from slams_ray import storage
from slams_ray.config import SearchConfig, WalkConfig
from slams_ray.runtime.shards import ShardInput, ShardJob, sum_shards
from slams_ray.stages.infer_activation import inference_pool
from slams_ray.stages.stage import Attempt, Result, StageContext
from slams_ray.stages.training import MODEL_NAME
from slams_ray.workers.walk import make_variants_mapper, make_walk


@dataclass(frozen=True, kw_only=True)
class MapSet:
    """Maps of the slices of a search.

    Attributes:
        scales: name of the set of scales.
        walk: name of the settings of the walk; None for maps as inferred.
    """

    scales: str
    walk: str | None = None

    def directory(self, slices_directory: str) -> str:
        """Returns the directory of the maps."""
        inferred = storage.join(slices_directory, "maps", self.scales)
        return inferred if self.walk is None else f"{inferred}-walk"

    def column(self, system: str) -> str:
        """Returns the column of the maps."""
        return system if self.walk is None else self.walk


def walk_sets(config: SearchConfig, walk: WalkConfig) -> dict[str, WalkConfig]:
    """Returns the walks to choose from, by name; the configured settings are always among them."""
    betas, nums_steps = walk_grid(config, walk)
    return {
        walk_name(beta, num_steps): replace(walk, beta=beta, num_steps=num_steps)
        for beta in betas
        for num_steps in nums_steps
    }


def walk_grid(config: SearchConfig, walk: WalkConfig) -> tuple[list[float], list[int]]:
    """Returns all betas and all numbers of steps, the configured one first."""
    return (
        list(dict.fromkeys([walk.beta, *config.walk_beta])),
        list(dict.fromkeys([walk.num_steps, *config.walk_num_steps])),
    )


def walk_name(beta: float, num_steps: int) -> str:
    """Formats the settings of a walk, as in `beta 10, 256 steps`."""
    return f"beta {beta:g}, {num_steps} steps"


def map_set_of(point: Mapping[str, Any]) -> MapSet:
    """Returns the maps that a point of the search names."""
    return MapSet(scales=point["scales"], walk=point.get("walk"))


@dataclass(frozen=True, kw_only=True)
class Walks:
    """Walks that a search chooses from.

    Attributes:
        edges: the trained edge network.
        class_names: classes it was trained for.
        configured: settings of the walk without a search.
        config: settings of the search.
    """

    edges: Result
    class_names: tuple[str, ...]
    configured: WalkConfig
    config: SearchConfig

    @property
    def names(self) -> list[str]:
        """Names of all walks, the configured one first."""
        return list(walk_sets(self.config, self.configured))

    def chosen(self, point: Mapping[str, Any]) -> WalkConfig:
        """Returns the settings of the walk that a point names."""
        return walk_sets(self.config, self.configured)[point["walk"]]


def walk_maps(
    names: Sequence[str],
    maps: MapSet,
    system: str,
    walks: Walks,
    context: StageContext,
    attempt: Attempt,
) -> None:
    """Walks the maps of all slices with all settings.

    Args:
        names: all slices.
        maps: maps as inferred.
        attempt: attempt whose output directory holds slices and maps.
    """
    columns = ("image_id", "image", "height", "width", "image_labels")
    directory = attempt.output_dir
    betas, nums_steps = walk_grid(walks.config, walks.configured)
    make_refinement = partial(
        make_walk, walks.edges.path(MODEL_NAME), walks.configured, walks.class_names
    )
    job = ShardJob(
        label=f"walks at {maps.scales}",
        names=names,
        inputs={
            "slices": ShardInput(directory=storage.join(directory, "slices"), columns=columns),
            "maps": ShardInput(directory=maps.directory(directory), columns=("image_id", system)),
        },
        output_dir=replace(maps, walk=walks.names[0]).directory(directory),
        fingerprint=attempt.fingerprint,
        nodes=attempt.nodes,
        devices=attempt.devices,
        make_work=partial(
            make_variants_mapper, system, make_refinement, betas, nums_steps, walks.names
        ),
        pool=inference_pool(context.compute),
    )
    sum_shards(job, ["num_rows"])
