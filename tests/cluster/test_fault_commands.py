"""Which faults are injected into which stages, and by which commands; nothing runs."""

import json
from dataclasses import replace
from pathlib import Path

import tyro

from slams_ray.cli.predict import PredictCommand
from slams_ray.faults.commands import PREDICT, STAGES, arguments, cases, reference_stages
from slams_ray.faults.faults import FAULTS
from slams_ray.faults.injection import FaultRow, write_rows


def test_a_prediction_follows_the_pipeline_and_has_its_own_command(tmp_path: Path) -> None:
    model = tmp_path / "train_segmentation" / "0" / "model.pt"
    model.parent.mkdir(parents=True)
    model.touch()
    (tmp_path / "synthetic" / "24-8").mkdir(parents=True)
    assert STAGES[-1] == PREDICT
    found = arguments(PREDICT, tmp_path)
    assert found[found.index("--model") + 1] == str(model)
    assert found[found.index("--images") + 1] == f"{tmp_path}/synthetic/24-8/train"
    assert arguments("refine", tmp_path)[-2:] == ["--until", "refine"]
    parsed = tyro.cli(PredictCommand, args=found[3:])
    assert (parsed.cluster, parsed.output_format) == ("always", "parquet")


def test_the_reference_has_all_outputs_that_cases_are_compared_with() -> None:
    assert reference_stages(["refine", "prepare"]) == ["refine"]
    assert reference_stages(["prepare", PREDICT]) == ["train_segmentation", PREDICT]
    assert reference_stages([PREDICT, "evaluate"]) == ["evaluate", PREDICT]


def test_faults_that_a_stage_cannot_have_are_left_out() -> None:
    found = cases(STAGES, tuple(FAULTS))
    assert len(found) == len(set(found))
    of_predict = {fault for stage, fault in found if stage == PREDICT}
    assert of_predict == FAULTS.keys() - {"mlflow_gone"}
    of_training = {fault for stage, fault in found if stage == "train_affinity"}
    assert of_training == FAULTS.keys() - {"image_corrupted", "image_crashing"}


def test_rows_of_an_earlier_call_are_kept(tmp_path: Path) -> None:
    row = FaultRow(
        stage="refine",
        fault="stopped",
        survived=False,
        seconds_lost=1.0,
        redone=0,
        identical=False,
        num_commands=1,
    )
    again, other = replace(row, survived=True), replace(row, fault="worker_killed")
    for rows in ([row], [other], [again]):
        write_rows(tmp_path / "faults.json", rows)
    found = json.loads((tmp_path / "faults.json").read_text())
    assert [(entry["fault"], entry["survived"]) for entry in found] == [
        ("worker_killed", False),
        ("stopped", True),
    ]
