"""Tests of a group share a process, and with it a cluster and the pipeline they look at."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="tests run in one process")
def test_the_scheduler_knows_the_group_of_a_test(request: pytest.FixtureRequest) -> None:
    """pytest-xdist reads the group from the id, and ignores it in silence where it has none."""
    assert request.node.nodeid.endswith(f"@{request.node.path}")
