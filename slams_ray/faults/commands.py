"""Commands of the stages that faults are injected into: a small pipeline, and a prediction."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from slams_ray.config import RefinementConfig
from slams_ray.faults.faults import FAULTS
from slams_ray.model.source import CHECKPOINT_NAME, TRAINED_BY
from slams_ray.recipes.smoke import smoke
from slams_ray.stages.steps import stage_names

REFINEMENT = RefinementConfig(steps=("walk", "crf"))
PIPELINE = tuple(stage_names(replace(smoke(), refinement=REFINEMENT)))
PREDICT = "predict"
"""Not a stage of the pipeline: its network predicts the photographs of the train split."""
STAGES = (*PIPELINE, PREDICT)
_TRAININGS = ("encoder", "classifier", "activation", "affinity", "segmentation")
_SETTINGS = (
    "smoke",
    "--data.images-per-shard",
    "3",
    "--refinement.steps",
    *REFINEMENT.steps,
    # As on real data: tasks of Ray Data load the images of a training.
    "--compute.data-loading-tasks",
    "1",
    # A fault must meet the training of its stage.
    "--compute.trainings-at-once",
    "1",
    # Trainings are long enough for a fault to occur while they run.
    *(a for name in _TRAININGS for a in (f"--{name}.training.epochs", "8")),
    *(a for name in _TRAININGS for a in (f"--{name}.training.checkpoint-every-steps", "5")),
)


def arguments(stage: str, workspace: Path) -> list[str]:
    """Returns the arguments of Python that run a stage, and those before it in the pipeline."""
    if stage != PREDICT:
        job = ["pipeline", *_SETTINGS, "--workspace", str(workspace), "--until", stage]
        return ["-m", "slams_ray", *job]
    (model,) = (workspace / TRAINED_BY).glob(f"*/{CHECKPOINT_NAME}")
    return [
        *("-m", "slams_ray", "predict", "--cluster", "always", "--on-bad-image", "fail"),
        *("--model", str(model), "--images", str(source(workspace) / "train")),
        *("--output", str(workspace / PREDICT), "--output-format", "parquet"),
        *("--images-per-shard", "2"),
    ]


def source(workspace: Path) -> Path:
    """Returns the directory of the generated data set."""
    (found,) = (workspace / "synthetic").iterdir()
    return found


def reference_stages(stages: Sequence[str]) -> list[str]:
    """Returns the stages whose commands make all outputs that the given ones are compared with."""
    needed = [TRAINED_BY if stage == PREDICT else stage for stage in stages]
    return [max(needed, key=PIPELINE.index)] + ([PREDICT] if PREDICT in stages else [])


def cases(stages: Sequence[str], faults: Sequence[str]) -> list[tuple[str, str]]:
    """Returns each stage with each fault that applies to it. A prediction has no MLflow run."""
    return [
        (stage, fault)
        for stage in stages
        for fault in faults
        if (not FAULTS[fault].only or stage in FAULTS[fault].only)
        and not (FAULTS[fault].tracked and stage == PREDICT)
    ]
