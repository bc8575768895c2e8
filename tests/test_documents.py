"""The commands of README and docs exist and parse, and the files they name are there."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path: path.read_text() for path in DOCUMENTS}
BLOCKS = [
    block
    for text in TEXTS.values()
    for block in re.findall(r"^```\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
]
LINES = [line.strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
PYTHON = ".venv/bin/python "
NO_RECIPE = (
    "jobs.predict",
    "jobs.benchmark",
    "jobs.convert",
    "jobs.export",
    "jobs.faults",
    "jobs.serve",
    "jobs.workspace",
)
"""Jobs without a recipe, which have no dry run."""
COMMANDS = [line.removeprefix(PYTHON) for line in LINES if line.startswith(PYTHON)]


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 5


WITHOUT_RECIPE = [command for command in COMMANDS if command.split()[1] in NO_RECIPE]


@pytest.mark.parametrize("command", WITHOUT_RECIPE)
def test_every_command_without_a_recipe_parses(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, job, *arguments = shlex.split(command, comments=True)
    module = importlib.import_module(f"slams_ray.cli.{job.removeprefix('jobs.')}")
    started: list[object] = []
    monkeypatch.setattr(module, "guarded", started.append)
    monkeypatch.setattr(sys, "argv", [job, *arguments])
    module.main()
    assert len(started) == 1


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - set(WITHOUT_RECIPE)))
def test_every_command_with_a_recipe_parses(command: str) -> None:
    shown = subprocess.run(
        [sys.executable, *shlex.split(command), "--dry-run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)))
)
def test_every_make_target_exists(target: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert target in targets


@pytest.mark.parametrize(
    ("document", "link"),
    [(d, link) for d in DOCUMENTS for link in re.findall(r"\]\(([^)#]+)\)", TEXTS[d])],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_link_into_the_repository_leads_somewhere(document: Path, link: str) -> None:
    assert link.startswith("https://") or (document.parent / link).exists()


def test_the_page_of_settings_is_that_of_the_classes(tmp_path: Path) -> None:
    page = ROOT / "docs" / "settings.md"
    code = (
        "import runpy, pathlib; m = runpy.run_path('docs/generate_settings.py'); "
        "print(m['render']() + chr(10) + m['shared_sections']().rstrip())"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert made.stdout == page.read_text(), "run make docs"


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "settings" / "index.html").is_file()


def test_the_architecture_names_every_folder_of_the_package() -> None:
    folders = {
        p.name for p in (ROOT / "slams_ray").iterdir() if p.is_dir() and p.name != "__pycache__"
    }
    assert all(f"{name}/" in ARCHITECTURE for name in folders)


def test_no_placeholder_is_left() -> None:
    assert not any("@@" in text for text in TEXTS.values())
