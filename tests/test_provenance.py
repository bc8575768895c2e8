import shutil
import subprocess
from pathlib import Path

import pytest

from slams_ray import provenance


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package in a repository of its own."""
    copy = tmp_path / "repository" / "slams_ray"
    shutil.copytree(
        Path(provenance.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__")
    )
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=copy.parent, check=True)
    monkeypatch.setattr(provenance, "_PACKAGE", copy)
    provenance.arithmetic.cache_clear()
    yield copy
    provenance.arithmetic.cache_clear()


def test_a_changed_source_file_is_told_beside_the_commit(package: Path) -> None:
    before = provenance.commit()
    assert len(before or "") == 40
    assert provenance.has_changes() is False
    (package / "errors.py").write_text("")
    assert provenance.has_changes() is True
    assert provenance.commit() == before


def test_outside_a_repository_neither_is_known(package: Path) -> None:
    shutil.rmtree(package.parent / ".git")
    assert provenance.commit() is None
    assert provenance.has_changes() is None


def test_a_repository_around_an_installed_package_is_not_its_origin(package: Path) -> None:
    """A virtual environment in a project, ignored there or not."""
    repository = package.parent
    installed = repository / ".venv" / "slams_ray"
    shutil.copytree(package, installed)
    for ignored in ("", ".venv/"):
        (repository / ".gitignore").write_text(ignored)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(provenance, "_PACKAGE", installed)
            assert provenance.commit() is None
            assert provenance.has_changes() is None
    assert provenance.commit() is not None


@pytest.mark.parametrize(
    ("path", "computes"),
    [
        ("systems/slams/losses.py", True),
        ("metrics.py", True),
        ("workers/walk.py", True),
        ("model/predictor.py", True),
        ("runtime/search_space.py", True),
        ("runtime/trial_plan.py", True),
        ("stages/refine.py", True),
        ("stages/search_choice.py", True),
        ("stages/search_refinement.py", True),
        ("stages/slices.py", True),
        ("stages/threshold_choice.py", True),
        ("stages/trials.py", True),
        ("runtime/shards.py", False),
        ("stages/steps.py", False),
    ],
)
def test_the_digest_of_the_arithmetic_follows_the_code_that_computes(
    path: str, computes: bool, package: Path
) -> None:
    before = provenance.arithmetic()
    with (package / path).open("a") as file:
        file.write("\n# changed\n")
    provenance.arithmetic.cache_clear()
    assert (provenance.arithmetic() != before) is computes
