"""What a wheel holds and needs, and that it installs into an empty environment."""

import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = {"numpy", "pillow", "pyarrow", "torch", "torchvision"}
UV = Path(sys.executable).with_name("uv")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert found.returncode == 0, found.stderr
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the sdist, and the wheel built from it."""
    pytest.importorskip("setuptools", reason="builds without a download")
    if not UV.exists():
        pytest.skip("there is no uv beside this Python")
    output = tmp_path_factory.mktemp("dist")
    run(
        UV,
        "build",
        "--offline",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        output,
        ROOT,
    )
    return output


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_a_wheel_holds_the_package_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"slams_ray"}
    assert "slams_ray/py.typed" in names
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "slams_ray").rglob("*.py")}
    assert sources <= set(names)


def test_the_core_needs_five_packages_and_all_have_bounds(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (path,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    required = message_from_bytes(archive.read(path)).get_all("Requires-Dist") or []
    core = [line for line in required if "extra ==" not in line]
    assert {line.split(">")[0] for line in core} == CORE
    assert all(">=" in line for line in core)
    of_extras = [line for line in required if 'extra == "train"' in line]
    assert len(of_extras) >= 10
    assert all(">=" in line for line in of_extras)


def test_a_wheel_installs_and_its_command_says_what_else_it_needs(
    wheel: Path, tmp_path: Path
) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    run(UV, "venv", "--offline", "--python", sys.executable, tmp_path / "venv")
    run(UV, "pip", "install", "--offline", "--no-deps", "--python", python, wheel)
    slams = python.with_name("slams")
    assert "compare" in run(slams).stdout
    assert run(python, "-c", "import slams_ray; print(slams_ray.__name__)").stdout == "slams_ray\n"
    failed = subprocess.run([slams, "compare"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "[train]" in failed.stderr
