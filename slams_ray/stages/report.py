"""Figures of a finished pipeline, in the workspace and in the parent run."""

from collections.abc import Mapping, Sequence

import numpy as np

from slams_ray import storage
from slams_ray.config import PipelineConfig
from slams_ray.data.image import decode_image, decode_mask
from slams_ray.data.source import TRAIN
from slams_ray.data.stored_maps import unpack_maps, upsample_stored
from slams_ray.figures.canvas import to_png
from slams_ray.figures.montage import Example, montage_figure
from slams_ray.inference.segmentation_predictor import SegmentationPredictor
from slams_ray.model.predictor import make_predictor
from slams_ray.refinement.maps import WalkRefinement, to_levels
from slams_ray.stages import (
    evaluate,
    infer_activation,
    outputs,
    prepare,
    refine,
    train_affinity,
    train_segmentation,
)
from slams_ray.stages.examples import choose_examples
from slams_ray.stages.settings_report import CURVE_NAME
from slams_ray.stages.stage import Result, StageContext
from slams_ray.stages.training import MODEL_NAME
from slams_ray.systems.registry import titles
from slams_ray.training.data_loading import ShardColumns
from slams_ray.training.samples import Row
from slams_ray.workers.walk import make_walk

MONTAGE_NAME = "montage.png"


def publish(context: StageContext, config: PipelineConfig, results: Mapping[str, Result]) -> None:
    """Draws a montage of training images. Logs it, curve and per-class IoU to the parent run."""
    description = prepare.open_prepared(results[prepare.STAGE]).description
    figure = montage_figure(description, examples(config, results))
    montage = storage.join(context.workspace, MONTAGE_NAME)
    storage.write_bytes(montage, to_png(figure))
    pictures = (
        montage,
        outputs.labels(results).path(CURVE_NAME),
        results[evaluate.STAGE].path(evaluate.CLASS_IOU_NAME),
    )
    for path in pictures:
        # Without masks there are no curve and no per-class IoU.
        if storage.exists(path):
            context.session.open().log_file(path)


def examples(config: PipelineConfig, results: Mapping[str, Result]) -> list[Example]:
    """Returns the training images of the montage, with everything that was made of them.

    Args:
        results: finished stages, up to the segmentation network.
    """
    data = prepare.open_prepared(results[prepare.STAGE])
    network = results[train_segmentation.STAGE].path(MODEL_NAME)
    class_names = data.description.class_names
    predictor = make_predictor(network, config.segmentation.inference, class_names, "cpu")
    shown = _map_titles(config)
    sources = _sources(data, results, tuple(shown))
    rows = choose_examples(data.names(TRAIN), sources, config.tracking.num_examples)
    walk = _walk(config, results, class_names)
    return [_example(row, predictor, shown, walk) for row in rows]


def _sources(
    data: prepare.PreparedData, results: Mapping[str, Result], systems: Sequence[str]
) -> list[ShardColumns]:
    images = ShardColumns(
        directory=data.images(TRAIN),
        columns=("image", "mask", "height", "width", "image_labels"),
    )
    labels = ShardColumns(
        directory=refine.pseudo_labels_dir(outputs.labels(results).output_dir),
        columns=("refined", "pseudo_label"),
    )
    if not systems:
        return [images, labels]
    directory = infer_activation.activations_dir(outputs.refined_maps(results).output_dir)
    return [images, labels, ShardColumns(directory=directory, columns=tuple(systems))]


def _map_titles(config: PipelineConfig) -> dict[str, str]:
    """System -> what the montage calls its maps, with the refinements they went through."""
    if not config.has_maps:
        return {}
    shown = titles(config.systems)
    shown[config.system] = ", ".join([shown[config.system], *config.refinement.map_steps])
    return shown


def _walk(
    config: PipelineConfig, results: Mapping[str, Result], class_names: tuple[str, ...]
) -> WalkRefinement | None:
    """Returns the walk that the maps went through; None if they did not walk."""
    edges = results.get(train_affinity.STAGE)
    if edges is None:
        return None
    return make_walk(edges.path(MODEL_NAME), config.walk, class_names, "cpu")


def _example(
    row: Row,
    predictor: SegmentationPredictor,
    map_titles: Mapping[str, str],
    walk: WalkRefinement | None,
) -> Example:
    image_id = row["image_id"]
    image = decode_image(row["image"], image_id)
    maps = {title: _first_map(row, name) for name, title in map_titles.items()}
    if walk is not None:
        edges = to_levels(walk.edges(image))
        maps["edges"] = upsample_stored(edges[None], image.shape[:2])[0]
    return Example(
        image_id=image_id,
        image=image,
        class_index=row["image_labels"][0],
        maps=maps,
        refined=decode_mask(row["refined"], image_id),
        pseudo_label=decode_mask(row["pseudo_label"], image_id),
        ground_truth=None if row["mask"] is None else decode_mask(row["mask"], image_id),
        prediction=predictor.predict(image),
    )


def _first_map(row: Row, system: str) -> np.ndarray:
    """Returns the map of the first class, at image size."""
    size = row["height"], row["width"]
    return upsample_stored(unpack_maps(row[system], row["image_labels"], *size), size)[0]
