"""Log lines of tasks: shown by the driver, and no reason to fail when they are lost."""

import logging

import pytest
import ray

from slams_ray.runtime.relay import LineRelay, relayed

pytestmark = pytest.mark.ray


def test_lines_of_a_task_arrive_with_its_label(
    ray_cluster: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="slams_ray")
    with LineRelay() as relay, relayed(relay.queue, "seed 1"):
        logging.getLogger("slams_ray.stages").info("half done")
    assert "seed 1 | half done" in caplog.text


def test_a_lost_queue_does_not_fail_finished_work(
    ray_cluster: None, caplog: pytest.LogCaptureFixture
) -> None:
    with LineRelay() as relay:
        ray.kill(relay.queue.actor)
    assert "the last log lines of tasks are lost" in caplog.text
