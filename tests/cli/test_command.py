"""The command line: help, overrides, dry runs, and errors in one line."""

import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from slams_ray.cli.command import PipelineCommand, parse
from slams_ray.recipes import RECIPES

JOBS = sorted(
    p.stem
    for p in Path(__file__).parents[2].glob("jobs/*.py")
    if p.stem not in ("__init__", "benchmark", "command", "tables")
)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("job", JOBS)
def test_every_job_explains_itself(job: str) -> None:
    shown = run(f"jobs.{job}", "--help")
    assert shown.returncode == 0
    assert f"python -m jobs.{job}" in shown.stdout


@pytest.mark.parametrize("job", ["pipeline", "compare"])
def test_help_without_a_recipe_says_where_the_settings_are(job: str) -> None:
    assert (
        f"`python -m jobs.{job} demo --help` lists the sections of settings"
        in run(f"jobs.{job}", "--help").stdout
    )
    shown = run(f"jobs.{job}", "demo", "--help").stdout
    assert "lists the sections" not in shown
    assert f"`python -m jobs.{job} demo --help SECTION ...` explains" in shown


@pytest.mark.parametrize("job", ["compare", "ablate"])
def test_jobs_of_several_random_seeds_refuse_a_single_one(job: str) -> None:
    refused = run(f"jobs.{job}", "demo", "--seed", "3", "--dry-run")
    assert refused.returncode == 1
    assert "seed is 3, but this job takes --seeds" in refused.stderr
    accepted = run(f"jobs.{job}", "demo", "--seed", "3", "--seeds", "3", "4", "--dry-run")
    assert "random seeds 3, 4" in accepted.stdout


def test_help_of_a_recipe_lists_settings_with_defaults() -> None:
    shown = run("jobs.pipeline", "demo", "--help", "all")
    assert "--crf.iterations" in shown.stdout
    assert "Number of mean-field iterations" in shown.stdout
    assert "--workspace" in shown.stdout


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_dry_run_prints_the_resolved_settings_and_does_nothing(
    recipe: str, tmp_path: Path
) -> None:
    shown = run(
        "jobs.pipeline", recipe, "--dry-run", "--crf.gt-prob", "0.75", "--workspace", str(tmp_path)
    )
    assert shown.returncode == 0, shown.stderr
    assert "crf.gt_prob = 0.75" in shown.stdout.splitlines()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["compare", "demo", "--systems", "cam", "slams", "masks", "--refinements", "walk+crf"],
            ["random seeds 0, 1, 2, each with:", "cam walk+crf", "slams walk+crf", "masks"],
        ),
        (
            ["ablate", "demo", "--variants", "log form"],
            ["random seeds 0, each with:", "as the recipe", "log form"],
        ),
    ],
)
def test_a_dry_run_of_many_pipelines_lists_them(arguments: list[str], expected: list[str]) -> None:
    shown = run(f"jobs.{arguments[0]}", *arguments[1:], "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[-len(expected) :] == expected


@pytest.mark.parametrize("option", ["--dry-run", "--help"])
def test_what_is_printed_ends_quietly_when_its_reader_has_ended(option: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "jobs.pipeline", "demo", option]
    with os.fdopen(writer, "wb") as output:
        shown = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, check=False)
    assert shown.returncode == -signal.SIGPIPE
    assert shown.stderr == b""


def test_a_dry_run_refuses_what_the_run_would_refuse() -> None:
    for arguments in (
        ["compare", "demo", "--refinements", "wlk"],
        ["ablate", "demo", "--variants", "x"],
    ):
        shown = run(f"jobs.{arguments[0]}", *arguments[1:], "--dry-run")
        assert shown.returncode == 1
        assert repr(arguments[-1]) in shown.stderr


def test_overrides_reach_nested_settings() -> None:
    arguments = ["voc12", "--data.root", "/d", "--segmentation.training.long-side-px", "200", "400"]
    recipe, command = parse("", PipelineCommand, arguments)
    assert recipe == "voc12"
    assert command.config.data.root == "/d"
    assert command.config.segmentation.training.long_side_px == (200, 400)
    assert command.config.encoder == RECIPES["voc12"]().encoder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--crf.gt-prob", "1.5"], "crf.gt_prob is 1.5, expected"),
        (["demo", "--compute.train-workers", "99"], "for each of compute.train_workers (99)"),
        (["voc12", "--data.root", "/usr"], "/usr/JPEGImages is missing"),
        (["coco14", "--data.root", "/usr"], "/usr/annotations is missing"),
        (["folder", "--data.root", "/usr"], "/usr/labels.csv is missing"),
        (["folder", "--data.root", "/nowhere"], "there is no directory /nowhere"),
        (
            ["folder", "--classifier.backbone.name", "resnet50"],
            "classifier.backbone.weights is 'MobileNet_V2_Weights.IMAGENET1K_V1', expected weights",
        ),
        (
            ["folder", "--classifier.training.epochs", "0"],
            "--classifier.training.epochs: training.epochs is 0.0, expected > 0",
        ),
        (["demo", "--data.classes", "cat", "unicorn"], "unicorn"),
    ],
)
def test_bad_settings_end_in_one_line_that_names_them(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    shown = run("jobs.pipeline", *arguments, "--workspace", str(tmp_path))
    assert shown.returncode == 1
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--encoder.training.epochs", "0"], "--encoder.training.epochs: training.epochs is 0.0"),
        (["--crf.iterations", "-1"], "--crf.iterations: crf.iterations is -1"),
        # Which of two is bad cannot be told.
        (["--crf.iterations", "-1", "--segmentation.crf.iterations", "5"], "crf.iterations is -1"),
    ],
)
def test_a_bad_value_of_an_inner_section_names_its_option(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        parse("", PipelineCommand, ["demo", *arguments])
    assert capsys.readouterr().err.startswith(f"ConfigError: {named}, expected")


@pytest.mark.slow
def test_a_misspelt_setting_gets_a_suggestion_of_its_recipe_alone() -> None:
    shown = run("jobs.pipeline", "folder", "--classifer.training.epochs", "3", COLUMNS="200").stderr
    assert "--classifier.training.epochs FLOAT" in shown
    assert "folder --help" in shown
    assert not any(f"{name} --help" in shown for name in RECIPES if name != "folder")


def test_a_workspace_in_the_copy_of_a_submitted_job_is_refused(tmp_path: Path) -> None:
    workspace = str(tmp_path / "runtime_resources/working_dir_files/x/runs")
    shown = run("jobs.pipeline", "smoke", "--workspace", workspace)
    assert shown.returncode == 1
    assert f"--workspace is {workspace}, which is in the copy of the code" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_tells_its_version_and_what_it_does_not_know() -> None:
    version = run("slams_ray", "--version")
    assert (version.returncode, version.stdout) == (
        0,
        f"slams_ray {metadata.version('slams_ray')}\n",
    )
    unknown = run("slams_ray", "foo")
    assert unknown.returncode == 2
    assert "there is no command 'foo'" in unknown.stderr
    assert "slams COMMAND --help" in unknown.stdout


def test_a_misspelt_recipe_gets_the_names_of_all() -> None:
    failed = run("jobs.pipeline", "foldr")
    assert failed.returncode == 1
    assert "there is no recipe 'foldr', expected one of" in failed.stderr
    assert failed.stderr.strip().endswith("did you mean folder?")
    assert all(name in failed.stderr for name in RECIPES)


def test_a_workspace_that_cannot_be_written_is_named() -> None:
    shown = run("jobs.pipeline", "demo", "--workspace", "/dev/null/runs")
    assert shown.returncode == 1
    assert "/dev/null/runs" in shown.stderr
    assert "--workspace" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.slow
def test_an_mlflow_address_without_a_server_is_named(tmp_path: Path) -> None:
    shown = run(
        "jobs.pipeline",
        "demo",
        "--workspace",
        str(tmp_path),
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )
    assert shown.returncode == 1
    assert "MLFLOW_TRACKING_URI is http://127.0.0.1:9" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_full_disk_is_told_and_keeps_what_is_finished(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from slams_ray import retries, storage\n"
        "from slams_ray.errors import ArtifactError\n"
        "retries.PATIENCE_SECONDS = 2.0\n"
        "storage.write_bytes(sys.argv[1] + '/first', b'x' * 1000)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try:\n"
        "    storage.write_bytes(sys.argv[1] + '/second', b'x' * 100_000)\n"
        "except ArtifactError as error:\n"
        "    print(error)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert f"{tmp_path}/second cannot be written" in shown.stdout
    assert "free space" in shown.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["first"]


@pytest.mark.slow
@pytest.mark.ray
def test_a_local_cluster_has_a_dashboard_on_loopback_on_request(tmp_path: Path) -> None:
    arguments = ("smoke", "--dashboard", "--until", "prepare", "--workspace", str(tmp_path))
    shown = run("jobs.pipeline", *arguments)
    assert shown.returncode == 0, shown.stderr
    assert "dashboard: http://127.0.0.1:" in shown.stdout
