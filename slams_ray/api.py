"""What a program may call. Nothing is imported before a call, so `load` needs few libraries."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from slams_ray.model.model import Model
    from slams_ray.stages.pipeline import PipelineResult


def load(
    model: str | os.PathLike[str],
    *,
    device: str | None = None,
    crf: bool = False,
    tile_px: int | None = None,
    batch_size: int | None = None,
    max_image_pixels: int = 64_000_000,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    precision: Literal["auto", "float32", "bfloat16"] | None = None,
    max_side_px: int | None = None,
) -> "Model":
    """Loads a trained segmentation network.

    The last four settings are by default those with which the network was scored.

    Args:
        model: workspace of a finished pipeline, checkpoint, or MLflow model (`models:/name@best`).
        device: torch device, such as cpu or cuda; None is a GPU if there is one.
        crf: whether DeepLab's CRF of test time refines the labels, which takes seconds an image.
        tile_px: side of the tiles in which larger images are segmented, a multiple of 32; None
            takes images whole.
        batch_size: images of one size that share a forward; None chooses by device.
        max_image_pixels: largest number of pixels of an image, at most 178,956,970.
        scales: image scales whose scores are averaged.
        flip: whether the mirrored image is included as well.
        precision: number format of the network; auto is bfloat16 where the device multiplies it
            natively.
        max_side_px: longest side at which images are segmented; larger ones are shrunk.

    Raises:
        ArtifactError: there is no such model.
        ConfigError: a setting cannot be used.
    """
    from slams_ray.model.model import load_model

    return load_model(
        model,
        device=device,
        crf=crf,
        tile_px=tile_px,
        batch_size=batch_size,
        max_image_pixels=max_image_pixels,
        scales=scales,
        flip=flip,
        precision=precision,
        max_side_px=max_side_px,
    )


def train(
    recipe: str,
    settings: Mapping[str, Any] | None = None,
    *,
    workspace: str | os.PathLike[str] | None = None,
    until: str | None = None,
    show_progress: bool = True,
) -> "PipelineResult":
    """Runs a pipeline on Ray, as `python -m jobs.pipeline` does. Finished stages are kept.

    Example:
        slams_ray.train("folder", {"data.root": "photos", "seed": 1})

    Args:
        recipe: demo, smoke, folder, voc12, coco14, or the path of a YAML file such as a workspace's
            config.yaml.
        settings: settings to change, such as {"crf.iterations": 8} or {"crf": {"iterations": 8}}.
        workspace: directory or URI of all outputs; None is runs/<recipe>.
        until: last stage to run; None runs all.
        show_progress: whether this process prints log lines of this package from now on.

    Returns:
        results of the stages by name, and their summary with scores and warnings. `load` takes the
        workspace.

    Raises:
        SlamsError: a setting cannot be used, the data are bad, a stage failed, or the libraries of
            the extra `train` are missing.
    """
    try:
        from slams_ray.config.overrides import override
        from slams_ray.recipes import RECIPES, check_recipe, recipe_of_file
        from slams_ray.runtime.progress import log_to_stdout
        from slams_ray.runtime.submitted_job import workspace_path
        from slams_ray.stages import pipeline
        from slams_ray.stages.config_file import read_config
    except ModuleNotFoundError as error:
        from slams_ray.errors import ConfigError, how_to_install

        raise ConfigError(f"train needs {error.name}: {how_to_install('train')}") from error
    of_file: Mapping[str, Any] = {}
    if recipe.endswith((".yaml", ".yml")):
        named, of_file = read_config(recipe)
        recipe = recipe_of_file(named, recipe)
    check_recipe(recipe)
    config = override(override(RECIPES[recipe](), of_file), settings or {})
    given = None if workspace is None else os.fspath(workspace)
    path = workspace_path(recipe, given, "workspace")
    if show_progress:
        log_to_stdout()
    return pipeline.run(config, path, recipe, until)
