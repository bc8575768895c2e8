"""Our loop and the bare one train the same networks on the same images, as often."""

from pathlib import Path

import pytest
import torch

from slams_ray.benchmarks.harness import shards, training_loops
from slams_ray.benchmarks.measurements import training
from slams_ray.config import ComputeConfig, PipelineConfig
from slams_ray.systems.slams.activation import ActivationTask
from slams_ray.training.training import Training

NUM_STEPS = 3
ONE_TASK = ComputeConfig(data_loading_tasks=1)


@pytest.fixture
def trainings(tiny_config: PipelineConfig, tmp_path: Path) -> dict[str, Training]:
    data = shards.write_shards(shards.data_config(None, 8, None), str(tmp_path), 2, 4)
    return training_loops.make_trainings(tiny_config, data)


def test_there_are_all_four_trainings_as_long_as_asked(trainings: dict[str, Training]) -> None:
    assert list(trainings) == [
        "encoder",
        "classifier",
        "activation",
        "affinity",
        "segmentation",
    ]
    for one in trainings.values():
        for num_steps in (NUM_STEPS, 50):
            assert training_loops.lasting(one, num_steps).num_steps == num_steps


@pytest.mark.parametrize(
    "name",
    [
        "encoder",
        "classifier",
        "activation",
        "affinity",
        "segmentation",
    ],
)
def test_both_loops_train_the_same_network(trainings: dict[str, Training], name: str) -> None:
    ours = training_loops.OurLoop(training_loops.lasting(trainings[name], NUM_STEPS))
    theirs = training_loops.BareLoop(trainings[name], 0)
    bare = theirs.module.state_dict()
    # Ours holds frozen networks in the number format of autocast.
    assert all(torch.equal(v, bare[k].to(v.dtype)) for k, v in ours.module.state_dict().items())
    for loop in (ours, theirs):
        before = {k: v.clone() for k, v in loop.module.state_dict().items()}
        loop.run(NUM_STEPS)
        after = loop.module.state_dict()
        moved = [
            k for k in before if before[k].is_floating_point() and (before[k] != after[k]).any()
        ]
        # The backbone of the edge network is frozen.
        learns = name != "affinity"
        assert any(k.startswith("network.backbone") for k in moved) == learns
        assert any(k.startswith("network.head") for k in moved)
        assert not any(k.startswith("encoder.") for k in moved)


def test_a_step_row(trainings: dict[str, Training]) -> None:
    row = training.step_row("classifier", trainings["classifier"], 1, 7)
    assert row.ratio > 0
    assert row.goal == 0.95


def test_a_precision_row(trainings: dict[str, Training]) -> None:
    row = training.precision_row("classifier", trainings["classifier"], 1, 3)
    assert row.ratio > 0
    assert row.goal == 1


def test_batches_loaded_ahead_are_those_of_the_training_in_turn(
    trainings: dict[str, Training],
) -> None:
    loop, again = (
        training_loops.OurLoop(training_loops.lasting(trainings["activation"], 4)) for _ in range(2)
    )
    again.load_ahead(2)
    first, second = next(loop.batches), next(loop.batches)
    for expected in (first, second, first):
        found = next(again.batches)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def test_an_activation_row(trainings: dict[str, Training]) -> None:
    row = training.activation_row(trainings["activation"], trainings["classifier"], 1, 3)
    assert row.ratio > 0
    assert row.goal == pytest.approx(1 / 1.6)


def test_a_loss_without_weight_takes_no_second_pass_through_the_encoder(
    trainings: dict[str, Training],
) -> None:
    row = training.foreground_row(trainings["activation"], 1, 3)
    assert row.ratio > 0
    for weight in (0.0, 1.0):
        changed = training_loops.with_foreground(trainings["activation"], weight)
        assert isinstance(changed.task, ActivationTask)
        assert changed.task.config.losses.foreground == weight
    original = trainings["activation"].task
    assert isinstance(original, ActivationTask)
    assert original.config.losses.foreground == 1.0


@pytest.mark.slow
def test_the_bare_loop_tells_its_rate_in_every_window_but_the_warm(
    trainings: dict[str, Training], tmp_path: Path
) -> None:
    windows = training.Windows(steps_each=1, number=2)
    rates = training.bare_rates(
        trainings["classifier"], windows, str(tmp_path / "rates.json"), ONE_TASK
    )
    assert len(rates) == 2
    assert min(rates) > 0


@pytest.mark.ray
@pytest.mark.long
def test_a_row_through_ray(
    ray_cluster: None, trainings: dict[str, Training], tmp_path: Path
) -> None:
    windows = training.Windows(steps_each=1, number=2)
    row = training.ray_row(
        "classifier",
        trainings["classifier"],
        windows,
        str(tmp_path),
        compute=ONE_TASK,
        rounds=1,
    )
    assert row.ratio > 0
    history = (tmp_path / "classifier-0" / "training.json").read_text()
    assert history.count('"images_per_second"') == NUM_STEPS
