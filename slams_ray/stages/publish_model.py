"""Publishes the segmentation network of a finished pipeline as an MLflow model."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from slams_ray import storage
from slams_ray.artifacts import fingerprint
from slams_ray.model.source import CHECKPOINT_NAME, INFERENCE_NAME, SETTINGS
from slams_ray.runtime import tracked_model
from slams_ray.runtime.tracked_model import ModelPackage, Score
from slams_ray.stages import evaluate, prepare, train_segmentation
from slams_ray.stages.stage import Result, StageContext

NAME = "segmentation_network"
HEADLINE = "segmentation_miou"
CODE = "slams_ray.model.pyfunc_code"
REQUIREMENTS = ("numpy", "pillow", "pyarrow", "torch", "torchvision")
"""Packages that `CODE` and what it imports need, besides MLflow."""


def publish(context: StageContext, results: Mapping[str, Result]) -> None:
    """Logs the network with its scores to the parent run, and registers it if that is asked for."""
    scored = results[evaluate.STAGE].record
    split = scored.config["split"]
    data = results[prepare.STAGE]
    package = make_package(results)
    score = Score(
        metrics=scored.metrics,
        headline=HEADLINE,
        dataset=(f"{data.record.config['format']} {split}", scored.inputs["prepare"]),
    )
    parent = context.session.open()
    tracked_model.publish(parent, package, score, context.tracking.registered_name)


def make_package(results: Mapping[str, Result]) -> ModelPackage:
    """Returns the network, the settings it was scored with, and an image of the scored split."""
    trained = results[train_segmentation.STAGE]
    scored = results[evaluate.STAGE].record
    settings = {name: scored.config[name] for name in SETTINGS}
    found = importlib.util.find_spec(CODE)
    assert found is not None
    assert found.origin is not None
    code = Path(found.origin)
    return ModelPackage(
        name=NAME,
        fingerprint=fingerprint(NAME, settings, {scored.stage: scored.fingerprint}),
        code_path=str(code),
        package_path=str(code.parents[1]),
        files={
            "checkpoint": (CHECKPOINT_NAME, storage.read_bytes(trained.path(CHECKPOINT_NAME))),
            "settings": (INFERENCE_NAME, json.dumps(settings).encode()),
        },
        example=_example(results),
        requirements=REQUIREMENTS,
        params=settings | {"trained_by": trained.record.fingerprint},
    )


def _example(results: Mapping[str, Result]) -> bytes:
    """Returns the first encoded image of the scored split."""
    data = prepare.open_prepared(results[prepare.STAGE])
    role = data.scored_role
    path = storage.join(data.images(role), data.names(role)[0])
    _, row = next(storage.read_row_groups(path, ["image"], [0]))
    image: bytes = row["image"]
    return image
