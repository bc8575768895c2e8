"""The GPU benchmark's rows, on a CPU and with a driver that says what it is told to."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slams_ray.benchmarks.harness import shards, training_loops
from slams_ray.benchmarks.harness.busy import BusyLog, check_watchable, watched_gpus
from slams_ray.benchmarks.measurements import gpu, inference, training
from slams_ray.benchmarks.measurements.inference import Inference
from slams_ray.config import ActivationInferenceConfig, ComputeConfig, PipelineConfig
from slams_ray.errors import ConfigError
from slams_ray.training.training import Training

CPU = torch.device("cpu")
DRIVER = """#!/bin/sh
[ "$1" = --query-gpu=timestamp,index,utilization.gpu ] || exit 2
[ "$4" = "$ASKED_FOR" ] || exit 2
while :; do
  now=$(date "+%Y/%m/%d %H:%M:%S.%3N")
  echo "$now, 0, 75"; echo "$now, 1, 5"; echo "$now, 2, [N/A]"
  sleep 0.05
done
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi of three GPUs: one busy three quarters of the time, one hardly, one unknown."""
    directory = tmp_path / "driver"
    directory.mkdir()
    (directory / "nvidia-smi").write_text(DRIVER)
    (directory / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setenv("ASKED_FOR", "--id=0,1,2")


@pytest.fixture
def data(tmp_path: Path) -> shards.Shards:
    return shards.write_shards(shards.data_config(None, 8, None), str(tmp_path), 4, 2)


@pytest.fixture
def classifier(tiny_config: PipelineConfig, data: shards.Shards) -> Training:
    return training_loops.make_trainings(tiny_config, data)["classifier"]


@pytest.fixture
def work(data: shards.Shards, tmp_path: Path) -> Inference:
    models = inference.random_models(data, str(tmp_path))
    config = ActivationInferenceConfig(scales=(1.0,), precision="float32")
    return Inference(shards=data, models=models, config=config, directory=str(tmp_path))


def test_the_share_is_the_busiest_gpus_mean_between_two_times() -> None:
    first = [(1.0, 0, 0.0), (2.0, 0, 0.5), (3.0, 0, 1.0), (4.0, 0, 0.0)]
    log = BusyLog(samples=[*first, (2.0, 1, 0.1), (3.0, 1, 0.8)])
    assert log.share(1.5, 3.5) == 0.75
    log.add("No devices were found\n")
    with pytest.raises(
        ConfigError, match=r"no sample in the measured 0\.5 s but printed \['No devices"
    ):
        log.share(10.0, 10.5)


def test_the_driver_is_asked_for_as_long_as_the_block_runs(driver: None) -> None:
    began = time.time()
    with watched_gpus() as busy:
        while len(busy.samples) < 6:
            time.sleep(0.01)
    # The driver's clock counts whole milliseconds.
    assert busy.share(began - 0.001, time.time()) == pytest.approx(0.75)
    assert all(line.endswith("2, [N/A]") for line in busy.not_understood)
    number = len(busy.samples)
    time.sleep(0.2)
    assert len(busy.samples) == number


def test_what_cannot_be_watched_is_named_before_anything_is_measured(
    driver: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    check_watchable()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ConfigError, match="RAY_ADDRESS names a cluster"):
        check_watchable()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="nvidia-smi is not on the PATH"):
        check_watchable()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_machine_without_a_gpu_is_named() -> None:
    assert gpu.find_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r"torch finds no GPU.*--device cpu"):
        gpu.find_device("gpu")


@pytest.mark.long
def test_compiled_networks_have_the_same_loss_and_learn(classifier: Training) -> None:
    plain, compiled = (gpu.Steps(classifier, CPU, compiled=flag) for flag in (False, True))
    batch = next(plain.batches)
    losses = [
        steps.module(batch, np.random.default_rng(0), False)[0].item()
        for steps in (plain, compiled)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    before = {k: v.clone() for k, v in compiled.module.state_dict().items()}
    assert list(before) == list(plain.module.state_dict())
    compiled.run(1)
    assert any((before[k] != v).any() for k, v in compiled.module.state_dict().items())


@pytest.mark.long
def test_rows_of_steps(classifier: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    rate, layout = gpu.step_rows("classifier", classifier.without_amp(), CPU, 1, 1)
    assert "images per second" in rate.what
    assert (layout.against, layout.goal) == ("channels first", 1.0)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    *_, full = gpu.step_rows("classifier", classifier, CPU, 1, 1)
    assert full.against == "without autocast"
    compiled = gpu.compiled_row("classifier", classifier, CPU, 1, 1)
    assert (compiled.against, compiled.goal) == ("not compiled", 0)
    assert min(row.ratio for row in (rate, layout, compiled)) > 0


def test_rows_of_inference(work: Inference) -> None:
    # On a CPU and in float32 there is nothing to compare with.
    (rate,) = gpu.inference_rows(work, CPU, 1)
    assert "images per second" in rate.what
    low = replace(work, config=replace(work.config, precision="bfloat16"))
    _, whole = gpu.inference_rows(low, CPU, 1)
    assert whole.against.startswith("in float32")
    assert min(row.ratio for row in (rate, whole)) > 0


def test_a_training_is_watched_once_all_data_loading_tasks_have_given_two_batches(
    classifier: Training,
) -> None:
    # Batches of 4 from 4 shards: 4 streams, so a data-loading task makes 4 x 8 images at once.
    assert classifier.config.batch_size == 4
    windows = gpu.fed_windows(classifier, num_data_loading_tasks=3, steps_each=2, rounds=5)
    assert windows == training.Windows(steps_each=2, number=5 * 12, num_warm=2 * 12)


@pytest.mark.ray
@pytest.mark.long
def test_how_busy_inference_keeps_a_gpu(ray_cluster: None, driver: None, work: Inference) -> None:
    rate, busy = gpu.inference_busy_rows(work, CPU, 1)
    assert rate.ratio > 0
    assert busy.ratio == pytest.approx(0.75)
    assert not busy.met


@pytest.mark.ray
@pytest.mark.long
def test_how_busy_a_training_keeps_a_gpu(
    ray_cluster: None, driver: None, classifier: Training, tmp_path: Path
) -> None:
    windows = training.Windows(steps_each=2, number=2)
    compute = ComputeConfig(device="cpu", data_loading_tasks=1)
    rate, busy = gpu.training_busy_rows("classifier", classifier, windows, str(tmp_path), compute)
    assert rate.ratio > 0
    assert busy.ratio == pytest.approx(0.75)
    assert busy.goal == gpu.GOAL_BUSY
