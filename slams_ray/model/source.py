"""Finds the checkpoint that a path, a workspace or an MLflow model names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slams_ray import storage
from slams_ray.artifacts import read_record
from slams_ray.errors import ArtifactError

CHECKPOINT_NAME = "model.pt"
SUMMARY_NAME = "summary.json"
INFERENCE_NAME = "inference.json"
"""Inference settings beside the checkpoint of an MLflow model."""
TRAINED_BY, SCORED_BY = "train_segmentation", "evaluate"
"""Stages that train and score the segmentation network."""
SETTINGS = ("scales", "flip", "precision", "max_side_px")
"""Settings of inference that a user can change."""
MLFLOW_SCHEMES = ("models:/", "runs:/", "mlflow-artifacts:/")


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a trained network is.

    Attributes:
        path: path or URI of its checkpoint.
        scored_with: the `SETTINGS` of its finished evaluation; None if there is no evaluation, and
            the settings are those in the checkpoint.
    """

    path: str
    scored_with: Mapping[str, Any] | None = None


def find_model(model: str) -> ModelSource:
    """Finds a checkpoint.

    Args:
        model: a checkpoint, the workspace of a finished pipeline, or an MLflow model, such as
            `models:/name@best` or `runs:/<run id>/checkpoint/model.pt`.

    Raises:
        ArtifactError: it is none of them.
    """
    if model.startswith(MLFLOW_SCHEMES):
        return _in_mlflow(model)
    if storage.exists(model):
        return _at(model)
    outputs = stage_outputs(model)
    if outputs is None or TRAINED_BY not in outputs:
        raise ArtifactError(
            f"{model} is neither a checkpoint nor the workspace of a finished pipeline: give "
            f"{CHECKPOINT_NAME} of a {TRAINED_BY} stage, or a workspace with {SUMMARY_NAME}"
        )
    record = read_record(outputs[SCORED_BY]) if SCORED_BY in outputs else None
    scored_with = None if record is None else {name: record.config[name] for name in SETTINGS}
    return ModelSource(
        path=storage.join(outputs[TRAINED_BY], CHECKPOINT_NAME), scored_with=scored_with
    )


def stage_outputs(workspace: str) -> dict[str, str] | None:
    """Returns stage -> output directory of the last finished run; None without a summary.

    The directories are those in this workspace, also where the workspace was moved or copied. The
    stages `cam_*` of a system whose labels another learns have theirs beside those without prefix.
    """
    summary = _summary(workspace)
    return None if summary is None else _outputs(workspace, summary)


def used_outputs(workspace: str) -> set[str]:
    """Returns all output directories of the last finished run; none without a summary.

    A stage can run twice: `stage_outputs` has its last output. Summaries of earlier versions list
    no others.
    """
    summary = _summary(workspace)
    if summary is None:
        return set()
    others = (storage.join(workspace, name) for name in summary.get("outputs", []))
    return {*_outputs(workspace, summary).values(), *others}


def _outputs(workspace: str, summary: Mapping[str, Any]) -> dict[str, str]:
    names = {s["stage"]: s["output"].rstrip("/").split("/")[-2:] for s in summary["stages"]}
    return {stage: storage.join(workspace, *name) for stage, name in names.items()}


def _summary(workspace: str) -> dict[str, Any] | None:
    path = storage.join(workspace, SUMMARY_NAME)
    if not storage.exists(path):
        return None
    found: dict[str, Any] = json.loads(storage.read_bytes(path))
    return found


def _in_mlflow(model: str) -> ModelSource:
    """Downloads an MLflow model, and finds the checkpoint in it."""
    from slams_ray.runtime.tracked_model import download

    directory = download(model)
    if storage.exists(directory):
        return _at(directory)
    files = storage.list_files(directory)
    found = [name for name in files if name.rsplit("/", 1)[-1] == CHECKPOINT_NAME]
    if len(found) != 1:
        raise ArtifactError(
            f"{model} has {len(found)} files called {CHECKPOINT_NAME}, expected 1: name a model "
            "that this program logged, or the checkpoint itself"
        )
    return _at(storage.join(directory, found[0]))


def _at(path: str) -> ModelSource:
    """Returns the checkpoint at a path, with the settings of its evaluation if they are beside."""
    beside = path.rsplit("/", 1)[0] if "/" in path else "."
    settings = storage.join(beside, INFERENCE_NAME)
    scored_with = json.loads(storage.read_bytes(settings)) if storage.exists(settings) else None
    return ModelSource(path=path, scored_with=scored_with)
