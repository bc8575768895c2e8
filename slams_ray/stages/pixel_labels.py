"""Confident labels of the CAM maps, for systems that train on pixel labels (AMN).

CAM maps are inferred and their threshold is chosen before the other maps are made.
"""

from collections.abc import Callable, Mapping

from slams_ray.config import PipelineConfig
from slams_ray.stages import infer_activation, refine, search_threshold
from slams_ray.stages.pipeline_run import PipelineRun
from slams_ray.stages.stage import Result
from slams_ray.stages.train_systems import MapNetwork, PixelLabels
from slams_ray.systems.cam import STAGE as CLASSIFIER
from slams_ray.systems.registry import BASELINE, trainings_of
from slams_ray.training.data_loading import ShardColumns

STAGE = "amn_labels"


def _infer(run: PipelineRun) -> Result:
    networks = {BASELINE: MapNetwork(trained=run.results[CLASSIFIER], max_logit=None)}
    return infer_activation.run(run.context, run.inference, run.data, networks)


def _search_threshold(run: PipelineRun) -> Result:
    maps = run.results[infer_activation.STAGE]
    return search_threshold.run(run.context, run.config.threshold, run.data, maps, [BASELINE])


def _label(run: PipelineRun) -> Result:
    inputs = refine.RefineInputs(
        data=run.data,
        activations=run.results[infer_activation.STAGE],
        threshold=run.results[search_threshold.STAGE],
        system=BASELINE,
    )
    return refine.run_confident(run.context, run.config.crf, inputs, run.config.amn, STAGE)


STEPS: list[tuple[str, Callable[[PipelineRun], Result]]] = [
    (infer_activation.STAGE, _infer),
    (search_threshold.STAGE, _search_threshold),
    (STAGE, _label),
]
"""Steps before the training of a system that needs pixel labels."""


def of_stage(labels: Result) -> PixelLabels:
    """Returns the labels that a stage made, for a training."""
    directory = refine.pseudo_labels_dir(labels.output_dir)
    return PixelLabels(
        columns=ShardColumns(directory=directory, columns=("pseudo_label",)),
        digest=labels.record.notes[refine.LABELS_DIGEST],
    )


def confident(config: PipelineConfig, finished: Mapping[str, Result]) -> PixelLabels | None:
    """Returns the confident labels; None if no system of the pipeline needs them."""
    if not any(training.pixel_labels == "confident" for training in trainings_of(config)):
        return None
    return of_stage(finished[STAGE])
