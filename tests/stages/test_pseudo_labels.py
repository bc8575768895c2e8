"""SLAMs learns the pseudo labels of another system, on the tiny pipeline."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slams_ray.stages import pipeline, refine
from slams_ray.stages.training import LAST

pytestmark = pytest.mark.ray


def test_slams_learns_the_pseudo_labels_of_another_pipeline(finished: Any, tmp_path: Path) -> None:
    workspace, config = str(finished.copy_to(tmp_path)), finished.config
    losses = replace(config.activation.losses, pseudo_labels=1.0)
    activation = replace(config.activation, losses=losses, pseudo_labels_of="recam")
    config = replace(config, activation=activation)
    run = pipeline.run(config, workspace, "tiny", until="train_activation")
    training, labels = run.results["train_activation"].record, run.results["recam_refine"]
    assert training.inputs["pixel_labels"] == labels.record.notes[refine.LABELS_DIGEST]
    assert training.notes[LAST]["loss_pseudo_labels"] > 0
    # What ReCAM's labels score is no score of this pipeline.
    assert run.summary["scores"]["refined_miou"] is None
    recam = pipeline.run(replace(config, system="recam"), workspace, "recam", until="refine")
    assert recam.results["refine"].output_dir == labels.output_dir
