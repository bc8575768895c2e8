"""Shared fixtures: one Ray cluster for the session, and a pipeline small enough for tests."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

# Ray reads these when it is imported. Tests stay on this machine, so they need no token.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)
# Torch would otherwise use all cores in every one of Ray's processes at once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from slams_ray.config import PipelineConfig
from slams_ray.recipes.smoke import smoke

if TYPE_CHECKING:
    from slams_ray.stages.pipeline import PipelineResult

pytest_plugins = ("tests.generated_shard", "tests.tiny_tasks")

# Ray's workers inherit these variables when Ray starts, as on a cluster's nodes: an S3 server that
# runs where `object_store` is asked for.
with socket.create_server(("127.0.0.1", 0)) as _free:
    _STORE_PORT = _free.getsockname()[1]
STORE_SECRET = "planted-secret-of-the-object-store"
os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{_STORE_PORT}"
os.environ["AWS_ACCESS_KEY_ID"] = "tests"
os.environ["AWS_SECRET_ACCESS_KEY"] = STORE_SECRET
os.environ["AWS_DEFAULT_REGION"] = "us-east-1"


HAS_REFERENCE = find_spec("pydensecrf") is not None
if not HAS_REFERENCE:
    collect_ignore = ["refinement/crf", "refinement/test_pseudo_label.py"]


def pytest_report_header() -> str:
    """Says what is left out without pydensecrf, which does not compile with Python 3.13."""
    return "" if HAS_REFERENCE else "pydensecrf is not installed: no tests of the CRF against it"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips the longest tests, and says which tests share a process where several run them."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            item.add_marker(pytest.mark.xdist_group(_group(item)))
    if os.environ.get("SLAMS_LONG_TESTS"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes many minutes: make test-long"))


def _group(item: pytest.Item) -> str:
    """Returns the name of the group.

    Tests with Ray take longest. They are two groups: those that look at the finished pipeline, and
    the others. Each further file is a group.
    """
    fixtures = getattr(item, "fixturenames", ())
    if "finished" in fixtures:
        return "finished pipeline"
    if item.get_closest_marker("ray") is not None or "ray_cluster" in fixtures:
        return "ray"
    return str(item.path)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local cluster of two CPUs: as many as two training workers with data-loading tasks need.

    Every CPU is a process that imports torch: the start of workers is most of what tests wait for.
    """
    from slams_ray.runtime.environment import set_defaults

    set_defaults()
    import ray

    ray.init(
        # Tests in another process may have started a cluster that this one would join.
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=300 * 2**20,
        logging_level="WARNING",
        log_to_driver=False,
        # Workers that have imported torch wait for the next stage instead of being ended after 1 s.
        _system_config={"kill_idle_workers_interval_ms": 0},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """URI of a bucket of an S3 server on loopback."""
    import boto3

    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(_STORE_PORT)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while server.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", _STORE_PORT)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.2)
        boto3.client("s3").create_bucket(Bucket="slams")
        yield "s3://slams"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def tiny_config() -> PipelineConfig:
    """All stages on 24 + 8 generated images, a few optimisation steps each."""
    return smoke()


@dataclass(frozen=True)
class Finished:
    """A pipeline that has run; tests that add to its workspace do so in a copy."""

    workspace: Path
    config: PipelineConfig
    result: "PipelineResult"

    def copy_to(self, directory: Path) -> Path:
        return Path(shutil.copytree(self.workspace, directory / "workspace"))


@pytest.fixture(scope="session")
def finished(
    ray_cluster: None, tiny_config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    from slams_ray.stages import pipeline

    workspace = tmp_path_factory.mktemp("pipeline")
    result = pipeline.run(tiny_config, str(workspace), "tiny")
    return Finished(workspace, tiny_config, result)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real photographs for local checks."""
    default = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("SLAMS_TEST_DATA", default))
    if not root.is_dir():
        pytest.skip(f"no real photographs at {root}; set SLAMS_TEST_DATA to their directory")
    return root
