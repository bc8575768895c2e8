"""Stages propagate and pixel_adaptive: images and maps to better maps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from slams_ray.artifacts import to_plain
from slams_ray.config import PixelAdaptiveConfig, WalkConfig
from slams_ray.data.source import TRAIN
from slams_ray.data.stored_maps import activation_schema
from slams_ray.refinement.maps import MapRefinement
from slams_ray.runtime.shards import ShardInput, ShardJob, sum_shards
from slams_ray.stages.infer_activation import activations_dir, inference_pool
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Outcome, Result, StageContext, run_stage
from slams_ray.stages.training import MODEL_NAME
from slams_ray.workers.walk import make_mapper, make_pixel_adaptive, make_walk

WALK_STAGE, PIXEL_ADAPTIVE_STAGE = "propagate", "pixel_adaptive"
STAGES = {"walk": WALK_STAGE, "pixel_adaptive": PIXEL_ADAPTIVE_STAGE}
"""Refinement of maps -> its stage."""


@dataclass(frozen=True, kw_only=True)
class MapInputs:
    """Maps to refine.

    Attributes:
        activations: finished stage with the maps.
        system: name of the system whose maps are refined. The maps of the others are copied.
        systems: names of all systems with maps.
    """

    data: PreparedData
    activations: Result
    system: str
    systems: Sequence[str]


def propagate(
    context: StageContext, config: WalkConfig, inputs: MapInputs, edges: Result
) -> Result:
    """Walks the maps of a system over the edges of the trained network."""
    make_refinement = partial(
        make_walk, edges.path(MODEL_NAME), config, inputs.data.description.class_names
    )
    upstream = {"train_affinity": edges.record.fingerprint}
    return _run(context, WALK_STAGE, to_plain(config), upstream, inputs, make_refinement)


def adapt(context: StageContext, config: PixelAdaptiveConfig, inputs: MapInputs) -> Result:
    """Refines the maps of a system by the colours of the images."""
    make_refinement = partial(make_pixel_adaptive, config)
    return _run(context, PIXEL_ADAPTIVE_STAGE, to_plain(config), {}, inputs, make_refinement)


def _run(
    context: StageContext,
    stage: str,
    settings: Mapping[str, Any],
    upstream: Mapping[str, str],
    inputs: MapInputs,
    make_refinement: Callable[[str], MapRefinement],
) -> Result:
    data, activations = inputs.data, inputs.activations

    def work(attempt: Attempt) -> Outcome:
        job = ShardJob(
            label=stage,
            names=data.names(TRAIN),
            inputs={
                "images": ShardInput(directory=data.images(TRAIN), columns=("image_id", "image")),
                "activations": ShardInput(
                    directory=activations_dir(activations.output_dir),
                    columns=tuple(activation_schema(inputs.systems).names),
                ),
            },
            output_dir=activations_dir(attempt.output_dir),
            fingerprint=attempt.fingerprint,
            nodes=attempt.nodes,
            devices=attempt.devices,
            make_work=partial(make_mapper, inputs.system, make_refinement),
            pool=inference_pool(context.compute),
        )
        return Outcome(num_rows=sum_shards(job, ["num_rows"])["num_rows"])

    digests = {"prepare": data.images_digest(TRAIN), **upstream}
    digests[activations.record.stage] = activations.record.fingerprint
    return run_stage(context, stage, dict(settings) | {"system": inputs.system}, digests, work)
