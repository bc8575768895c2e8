"""The Ray token: private where this package makes it, and asked for wherever Ray is started."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from slams_ray.runtime import cluster, environment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_token_is_ours_alone_whatever_the_umask(home: Path) -> None:
    before = os.umask(0)
    try:
        cluster._ensure_private_token()
    finally:
        os.umask(before)
    token = home / ".ray" / "auth_token"
    assert re.fullmatch("[0-9a-f]{64}", token.read_text())
    assert mode(token) == 0o600
    assert mode(token.parent) == 0o700


def test_a_token_that_ray_left_readable_is_closed_and_kept(home: Path) -> None:
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("by Ray")
    token.chmod(0o644)
    cluster._ensure_private_token()
    assert (mode(token), token.read_text()) == (0o600, "by Ray")


@pytest.mark.parametrize(("chosen", "expected"), [(None, "True"), ("disabled", "False")])
def test_the_package_says_the_mode_to_a_ray_that_is_imported_already(
    chosen: str | None, expected: str
) -> None:
    program = (
        "import ray\n"
        "from ray._private.authentication.authentication_utils import is_token_auth_enabled\n"
        "from slams_ray.runtime import cluster\n"
        "cluster._set_environment()\n"
        "print(is_token_auth_enabled())\n"
    )
    variables = {k: v for k, v in os.environ.items() if k != "RAY_AUTH_MODE"}
    if chosen is not None:
        variables["RAY_AUTH_MODE"] = chosen
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [("10.0.0.1:6379", False), ("auto", False), ("local", True), (None, True)],
)
def test_the_mode_of_a_running_cluster_is_left_to_its_environment(
    monkeypatch: pytest.MonkeyPatch, address: str | None, expected: bool
) -> None:
    variables = {} if address is None else {"RAY_ADDRESS": address}
    monkeypatch.setattr(os, "environ", variables)
    environment.set_defaults()
    assert variables.get("RAY_AUTH_MODE") == ("token" if expected else None)


JOIN = """
import numpy, ray
from slams_ray.errors import SlamsError
from slams_ray.runtime import cluster

@ray.remote
class Counter:
    def total(self, values):
        return int(values.sum())

try:
    cluster.connect()
    values = ray.put(numpy.ones(1_000_000))
    print("joined", ray.get(Counter.remote().total.remote(values)))
except SlamsError as error:
    print(error)
"""


def joined(home: Path, address: str, **variables: str) -> str:
    """Output of a program that joins the cluster at an address, with only these Ray variables."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    run = subprocess.run(
        [sys.executable, "-c", JOIN],
        env=kept | {"HOME": str(home), "RAY_ADDRESS": address} | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


@pytest.mark.ray
@pytest.mark.parametrize("has_token", [True, False])
def test_a_cluster_without_tokens_is_joined_also_where_there_is_one_of_another(
    ray_cluster: None, home: Path, has_token: bool
) -> None:
    if has_token:
        cluster._ensure_private_token()
    assert joined(home, ray.get_runtime_context().gcs_address) == "joined 1000000"


@pytest.mark.ray
def test_who_asks_for_a_token_and_lacks_it_is_told_where_it_is_expected(
    ray_cluster: None, home: Path
) -> None:
    address = ray.get_runtime_context().gcs_address
    message = joined(home, address, RAY_AUTH_MODE="token")
    assert f"RAY_ADDRESS is {address}" in message
    assert "set RAY_AUTH_MODE to token (here: token)" in message
    assert f"{home}/.ray/auth_token" in message


def test_an_import_leaves_the_environment_of_its_program_alone() -> None:
    program = (
        "import os, ray\n"
        "before = dict(os.environ)\n"
        "from slams_ray.runtime import cluster, retry_queue, session, shards, tracking\n"
        "print([k for k in os.environ if k.startswith(('RAY', 'MLFLOW', 'TUNE')) "
        "and os.environ[k] != before.get(k)])\n"
    )
    names = ("RAY_", "MLFLOW_", "TUNE_")
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={k: v for k, v in os.environ.items() if not k.startswith(names)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"


def test_every_file_that_starts_ray_says_the_mode() -> None:
    """Ray's own default depends on how a cluster starts and on what ran there before."""
    starts = re.compile(r"\bray start\b|kind: Ray(Cluster|Job)\b|FROM .*\bray\b")
    files = [p for p in (ROOT / "cluster").rglob("*") if p.is_file() and p.suffix != ".md"]
    starting = {p.name: p.read_text() for p in files if starts.search(p.read_text())}
    assert {"local.sh", "aws.yaml", "on_premise.yaml", "raycluster.yaml", "rayjob.yaml"} <= set(
        starting
    )
    silent = [name for name, text in starting.items() if "RAY_AUTH_MODE" not in text]
    assert silent == []
    assert [name for name, text in starting.items() if "disabled" in text] == []
