import dataclasses
import json
from pathlib import Path

import pytest

from slams_ray.artifacts import (
    RECORD_NAME,
    Record,
    changed_fields,
    fingerprint,
    flatten,
    read_record,
    to_plain,
    write_record,
)
from slams_ray.config import CrfConfig, TrainingConfig
from slams_ray.errors import ArtifactError

RECORD = Record(
    stage="refine",
    fingerprint="0123456789ab",
    config={"crf": {"iterations": 4, "alpha_pair": [6.0, 24.0]}},
    inputs={"prepare": "aaaa", "infer_activation": "bbbb"},
    seconds=1.5,
    num_rows=12,
    metrics={"refined_miou": 0.5},
    notes={"skipped": [["a", "truncated"]]},
    versions={"torch": "2"},
    commit="deadbeef",
)


def test_the_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    one = fingerprint("refine", {"a": 1, "b": {"c": 2, "d": 3}}, {"x": "1", "y": "2"})
    two = fingerprint("refine", {"b": {"d": 3, "c": 2}, "a": 1}, {"y": "2", "x": "1"})
    assert one == two
    assert len(one) == 12
    assert set(one) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("stage", "config", "inputs"),
    [
        ("evaluate", {"a": 1, "b": [1, 2]}, {"x": "1"}),
        ("refine", {"a": 2, "b": [1, 2]}, {"x": "1"}),
        ("refine", {"a": 1, "b": [2, 1]}, {"x": "1"}),
        ("refine", {"a": 1, "b": [1, 2], "c": None}, {"x": "1"}),
        ("refine", {"a": 1, "b": [1, 2]}, {"x": "2"}),
        ("refine", {"a": 1, "b": [1, 2]}, {}),
    ],
)
def test_the_fingerprint_changes_with_stage_config_and_inputs(
    stage: str, config: dict[str, object], inputs: dict[str, str]
) -> None:
    assert fingerprint(stage, config, inputs) != fingerprint(
        "refine", {"a": 1, "b": [1, 2]}, {"x": "1"}
    )


def test_a_plain_config_survives_json() -> None:
    plain = to_plain(CrfConfig())
    assert json.loads(json.dumps(plain)) == plain
    assert plain["alpha_pair"] == [6.0, 24.0]


def test_flatten_joins_names_with_dots() -> None:
    nested = {"a": 1, "b": {"c": [2, 3], "d": {"e": None}}}
    assert flatten(nested) == {"a": 1, "b.c": [2, 3], "b.d.e": None}


def test_a_record_comes_back_as_written(tmp_path: Path) -> None:
    write_record(str(tmp_path), RECORD)
    assert read_record(str(tmp_path)) == RECORD


def test_without_a_record_there_is_none(tmp_path: Path) -> None:
    assert read_record(str(tmp_path / "missing")) is None


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.6, 0.99])
def test_a_truncated_record_is_refused_and_named(tmp_path: Path, kept: float) -> None:
    write_record(str(tmp_path), RECORD)
    path = tmp_path / RECORD_NAME
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(
        ArtifactError, match=rf"{RECORD_NAME} is truncated.*remove .*makes it again"
    ):
        read_record(str(tmp_path))


@pytest.mark.parametrize("content", ["[]", "{}", '{"stage": "refine", "colour": 1}', "3"])
def test_json_that_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD_NAME).write_text(content)
    with pytest.raises(ArtifactError, match="not a record"):
        read_record(str(tmp_path))


def test_an_unchanged_config_has_no_changed_fields() -> None:
    assert changed_fields(RECORD, RECORD.config, RECORD.inputs) == []


def test_changed_fields_gives_dotted_names_and_both_values() -> None:
    config = {"crf": {"iterations": 5, "alpha_pair": [6.0, 24.0]}}
    inputs = RECORD.inputs | {"prepare": "cccc"}
    assert changed_fields(RECORD, config, inputs) == [
        "crf.iterations: 4 -> 5",
        "input prepare: aaaa -> cccc",
    ]


def test_changed_fields_shows_new_and_removed_settings() -> None:
    changes = changed_fields(RECORD, {"crf": {"iterations": 4, "gt_prob": 0.7}}, RECORD.inputs)
    assert changes == ["crf.alpha_pair: [6.0, 24.0] -> None", "crf.gt_prob: None -> 0.7"]


def test_changed_fields_of_two_configs_names_what_was_replaced() -> None:
    old = dataclasses.replace(RECORD, config=to_plain(TrainingConfig()))
    new = to_plain(TrainingConfig(batch_size=32))
    assert changed_fields(old, new, RECORD.inputs) == ["batch_size: 16 -> 32"]
