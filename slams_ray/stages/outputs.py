"""Finds maps and labels among the finished stages of a pipeline."""

from collections.abc import Mapping

from slams_ray.stages import import_files, infer_activation, refine, refine_maps
from slams_ray.stages.stage import Result

Results = Mapping[str, Result]
"""Finished stages by name, in order."""


def seed_maps(results: Results) -> Result:
    """Returns the stage with the maps before any refinement: imported, or inferred."""
    return results.get(import_files.MAPS_STAGE) or results[infer_activation.STAGE]


def refined_maps(results: Results) -> Result:
    """Returns the stage with the maps after the last refinement of maps."""
    found = [result for stage, result in results.items() if stage in refine_maps.STAGES.values()]
    return found[-1] if found else seed_maps(results)


def labels(results: Results) -> Result:
    """Returns the stage with the pseudo labels: imported, or refined."""
    return results.get(import_files.LABELS_STAGE) or results[refine.STAGE]
