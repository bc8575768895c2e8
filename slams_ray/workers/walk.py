"""Work of a process that turns maps into better maps."""

from collections.abc import Callable, Sequence

import torch

from slams_ray import storage
from slams_ray.config import PixelAdaptiveConfig, WalkConfig
from slams_ray.inference.precision import optimize_for_inference
from slams_ray.networks.checkpoint import load_network
from slams_ray.refinement.maps import MapRefinement, PixelAdaptiveRefinement, WalkRefinement
from slams_ray.refinement.maps_work import RefineMapsMapper, WalkVariantsMapper
from slams_ray.runtime.cluster import assigned_device


def make_walk(
    path: str, config: WalkConfig, class_names: tuple[str, ...], device: str
) -> WalkRefinement:
    """Loads the edge network onto a torch device.

    Args:
        class_names: classes that the network must have been trained for.
    """
    network = load_network(storage.read_bytes(path), path, "edge_network", class_names)
    target = torch.device(device)
    # Not in bfloat16, which changes a third of the stored pixels, some by 19 of 255 levels.
    network = optimize_for_inference(network, torch.float32, target)
    return WalkRefinement(network, config.beta, config.num_steps, target, config.erase_edges)


def make_pixel_adaptive(config: PixelAdaptiveConfig, device: str) -> PixelAdaptiveRefinement:
    """Builds the refinement on a torch device."""
    return PixelAdaptiveRefinement(config.num_rounds, torch.device(device))


def make_mapper(system: str, make_refinement: Callable[[str], MapRefinement]) -> RefineMapsMapper:
    """Builds the mapper. It runs once in every process that refines maps.

    Args:
        make_refinement: gets a torch device.
    """
    return RefineMapsMapper(system, make_refinement(assigned_device()))


def make_variants_mapper(
    system: str,
    make_refinement: Callable[[str], WalkRefinement],
    betas: Sequence[float],
    nums_steps: Sequence[int],
    names: Sequence[str],
) -> WalkVariantsMapper:
    """Builds the mapper of a search. It runs once in every process that walks.

    Args:
        make_refinement: gets a torch device.
        names: names of the columns, betas first, numbers of steps second.
    """
    return WalkVariantsMapper(system, make_refinement(assigned_device()), betas, nums_steps, names)
