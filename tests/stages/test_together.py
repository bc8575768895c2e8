"""Trainings that need nothing of each other run at the same time."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slams_ray.config import ComputeConfig, PipelineConfig
from slams_ray.config.overrides import override
from slams_ray.recipes.demo import demo
from slams_ray.recipes.folder import folder
from slams_ray.runtime import cluster
from slams_ray.stages import pipeline, together
from slams_ray.stages.stage import Result
from slams_ray.stages.steps import Step, groups, stage_names, steps
from slams_ray.stages.training import MODEL_NAME, network_settings
from slams_ray.systems.registry import trainings_of


def names_of(config: PipelineConfig) -> list[list[str]]:
    return [[name for name, _ in group] for group in groups(config, steps(config))]


def test_trainings_that_need_nothing_of_each_other_form_a_group() -> None:
    found = names_of(demo())
    assert found[:3] == [["prepare"], ["train_classifier", "train_encoder"], ["train_activation"]]
    assert all(len(group) == 1 for group in found[2:])


def test_groups_keep_every_step_in_order() -> None:
    config = replace(demo(), baselines=("cam", "recam", "seam", "cpn", "amn"))
    found = names_of(config)
    assert [name for group in found for name in group] == [name for name, _ in steps(config)]
    (peers,) = [group for group in found if "train_recam" in group]
    assert {"train_seam", "train_cpn"} <= set(peers)
    assert "train_classifier" not in peers
    # AMN learns labels, which other stages make from the CAM maps.
    assert found[[g[0] for g in found].index("amn_labels") + 1][0] == "train_amn"


def test_the_system_whose_labels_slams_learns_comes_before_it() -> None:
    config = override(
        folder(), {"activation.pseudo_labels_of": "recam", "baselines": ("cam", "seam")}
    )
    found = names_of(config)
    names = [name for group in found for name in group]
    first = names.index("recam_infer_activation")
    alone = stage_names(replace(config, system="recam"))
    to_labels = alone[alone.index("infer_activation") : alone.index("refine") + 1]
    assert names[first : names.index("train_activation")] == [f"recam_{n}" for n in to_labels]
    assert set(names[:first]) >= {"train_classifier", "train_recam", "train_encoder"}
    assert names.index("train_seam") < names.index("infer_activation")
    assert "recam" in config.trained_systems
    assert "recam" not in config.systems
    assert replace(config, system="cam").teacher is None


def test_all_networks_of_the_system_whose_labels_slams_learns_are_trained() -> None:
    values = {
        "activation.pseudo_labels_of": "puzzle",
        "activation.initialise_from_cam": False,
        "puzzle.initialise_from_cam": False,
        "baselines": (),
    }
    config = override(folder(), values)
    teacher = replace(config, system="puzzle", baselines=("cam",))
    trained = [training.stage for training in trainings_of(config)]
    assert trained[:2] == [training.stage for training in trainings_of(teacher)]
    assert trained[2:] == ["train_encoder", "train_activation"]


def test_whose_labels_are_learnt_tell_the_labels_and_not_the_settings() -> None:
    learns = override(folder(), {"activation.pseudo_labels_of": "recam"})
    assert network_settings(learns.activation) == network_settings(folder().activation)


def step(name: str, work: Callable[[], Any]) -> Step:
    return name, lambda run: work()


def run_together(*of: Step, places: int = 2) -> dict[str, Result]:
    run: Any = None
    return together._Together(of, run).run(places)


def test_steps_run_at_the_same_time_and_every_result_is_returned() -> None:
    both = threading.Barrier(2, timeout=10)

    def work() -> str:
        # Alone, the first would wait for the second until the barrier breaks.
        both.wait()
        return "met"

    assert run_together(step("a", work), step("b", work)) == {"a": "met", "b": "met"}


def test_no_more_steps_than_places_run_at_the_same_time() -> None:
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def work() -> int:
        with lock:
            running.append(1)
            most.append(len(running))
        threading.Event().wait(0.02)
        with lock:
            running.pop()
        return 0

    found = run_together(*[step(str(i), work) for i in range(7)], places=3)
    assert sorted(found) == [str(i) for i in range(7)]
    assert max(most) <= 3


def test_where_a_training_fails_the_started_one_is_finished_and_no_other_starts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    both = threading.Barrier(2, timeout=10)
    finished: list[str] = []

    def fail() -> None:
        both.wait()
        raise ValueError("no such weights")

    def last() -> None:
        both.wait()
        threading.Event().wait(0.05)
        finished.append("b")

    with pytest.raises(ValueError, match="no such weights"):
        run_together(step("a", fail), step("b", last), step("c", lambda: finished.append("c")))
    assert finished == ["b"]
    assert "a                  failed: no such weights" in caplog.text


@pytest.mark.ray
def test_trainings_at_the_same_time_give_the_networks_of_trainings_in_turn(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert finished.config.compute.trainings_at_once is None
    assert cluster.num_trainings(1, "cpu", finished.config.compute.train_threads) == 2
    in_turn = replace(
        finished.config, compute=replace(finished.config.compute, trainings_at_once=1)
    )
    monkeypatch.setattr(together._Together, "run", lambda *_: pytest.fail("not in turn"))
    results = pipeline.run(in_turn, str(tmp_path), "tiny", until="train_encoder").results
    assert list(results) == stage_names(in_turn)[:3]
    for stage in ("train_classifier", "train_encoder"):
        network = Path(finished.result.results[stage].path(MODEL_NAME)).read_bytes()
        assert Path(results[stage].path(MODEL_NAME)).read_bytes() == network


@pytest.mark.ray
def test_finished_trainings_do_not_ask_the_cluster(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = finished.copy_to(tmp_path)
    monkeypatch.setattr(together, "_num_places", lambda compute: pytest.fail("asked"))
    results = pipeline.run(finished.config, str(workspace), "tiny").results
    assert all(result.cached for result in results.values())
    assert list(results) == stage_names(finished.config)


def test_ray_starts_before_the_threads_that_train(monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[threading.Thread] = []
    monkeypatch.setattr(cluster, "connect", lambda: connected.append(threading.current_thread()))
    assert together._num_places(ComputeConfig(trainings_at_once=2)) == 2
    assert connected == [threading.main_thread()]


@pytest.mark.ray
def test_nodes_cores_and_threads_say_how_many_trainings_fit(ray_cluster: None) -> None:
    assert cluster.num_trainings(1, "cpu") == 1
    assert cluster.num_trainings(1, "cpu", train_threads=1) == 2
    assert cluster.num_trainings(2, "cpu", train_threads=1) == 1
    assert cluster.num_trainings(1, "cpu", train_threads=2) == 1
    assert cluster.num_trainings(1, "cpu", train_threads=8) == 1
