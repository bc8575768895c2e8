"""What the files under cluster/ must agree on, and what none of them may hold."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pathspec
import pytest

from slams_ray.config import PipelineConfig, TrainingConfig

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
README = (ROOT / "docs" / "clusters.md").read_text()
SECRET = re.compile(r"password|secret|token$|_key$|session", re.IGNORECASE)
Manifests = dict[str, list[dict[str, Any]]]


def mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from mappings(inner)


def literals(manifest: Any) -> list[str]:
    """Values written where a secret belongs; references, variables and paths are none."""
    found = []
    for mapping in mappings(manifest):
        pairs = list(mapping.items())
        if "name" in mapping and "value" in mapping:
            pairs.append((mapping["name"], mapping["value"]))
        for name, value in pairs:
            if SECRET.search(name) and isinstance(value, str):
                found += [] if value.startswith(("${", "~/")) else [f"{name}: {value}"]
    return found


def test_no_manifest_holds_a_secret(manifests: Manifests) -> None:
    assert [line for documents in manifests.values() for line in literals(documents)] == []


@pytest.mark.parametrize(
    "planted",
    [
        {"POSTGRES_PASSWORD": "hunter2"},
        {"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "abc"}]},
        {"kind": "Secret", "stringData": {"auth_token": "abc"}},
    ],
)
def test_a_planted_secret_is_found(planted: dict[str, Any]) -> None:
    assert len(literals(planted)) == 1


def test_ray_has_one_version(manifests: Manifests) -> None:
    versions = {
        m["rayVersion"] for ds in manifests.values() for m in mappings(ds) if "rayVersion" in m
    }
    assert versions == {PINS["ray"]}


def test_images_have_one_name_each(manifests: Manifests) -> None:
    images = {
        mapping["image"]
        for documents in manifests.values()
        for mapping in mappings(documents)
        if isinstance(mapping.get("image"), str)
    }
    version = PROJECT["project"]["version"]
    ours = {image for image in images if image.startswith("slams-ray")}
    assert ours == {f"slams-ray:{version}", f"slams-ray-mlflow:{version}"}
    assert ours == set(re.findall(r"--tag (\S+)", DOCKERFILE))
    assert all(re.search(r":[\w.-]*\d[\w.-]*$", image) for image in images), images


def test_the_image_has_the_python_that_is_tested() -> None:
    versions = set(re.findall(r"^FROM python:(\d+\.\d+)", DOCKERFILE, re.MULTILINE))
    assert versions == {PROJECT["project"]["requires-python"].removeprefix(">=")}


def test_the_image_is_pinned_compiled_and_not_run_by_root() -> None:
    assert "UV_CONSTRAINT=/build/constraints.txt" in DOCKERFILE
    assert "UV_COMPILE_BYTECODE=1" in DOCKERFILE
    assert re.findall(r"^USER (.+)", DOCKERFILE, re.MULTILINE)[-1] == "1000:1000"
    assert "RAY_AUTH_MODE=token" in DOCKERFILE


def test_what_the_image_copies_is_sent_to_docker() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{source}" for source in sources} == {line for line in sent if line[:1] == "!"}
    assert all((ROOT / source).exists() for source in sources)


def test_both_mlflow_servers_ask_who_is_there(manifests: Manifests) -> None:
    (deployment,) = (d for d in manifests["kubernetes/mlflow.yaml"] if d["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    compose = manifests["compose.yaml"][0]["services"]["mlflow"]
    for arguments in (container["args"], compose["command"]):
        options = dict(a.removeprefix("--").split("=", 1) for a in arguments if "=" in a)
        assert options["app-name"] == "basic-auth"
        assert "*" not in options["allowed-hosts"]
        assert re.match(r"postgresql\+psycopg2://[\w.]+:5432/", options["backend-store-uri"])


def test_a_submission_uploads_the_code_and_little_else() -> None:
    lines = [(ROOT / name).read_text() for name in (".gitignore", ".rayignore")]
    ignored = pathspec.GitIgnoreSpec.from_lines("\n".join(lines).splitlines())
    for package in ("slams_ray", "jobs"):
        sources = [str(p.relative_to(ROOT)) for p in (ROOT / package).rglob("*.py")]
        assert list(ignored.match_files(sources)) == []
    rest = ["tests/conftest.py", "cluster/.env", "runs/demo/mlflow.db", "data/VOC2012/a.jpg"]
    rest += ["photos/images/a.jpg", "masks/a.png"]
    assert list(ignored.match_files(rest)) == rest


def test_the_readme_names_settings_that_exist() -> None:
    named = re.findall(r"^\| `(\w+)\.(\w+)` \|", README, re.MULTILINE)
    sections = {field.name: field.type for field in fields(PipelineConfig)}
    known = {"training": TrainingConfig} | sections
    assert len(named) >= 6
    for section, setting in named:
        assert setting in {field.name for field in fields(known[section])}


@pytest.mark.parametrize("document", [ROOT / "SECURITY.md", ROOT / "docs" / "clusters.md"])
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", document.read_text()):
        linked = document.parent / target if target else document
        headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
        assert not anchor or anchor in {h.lower().replace(" ", "-") for h in headings}
