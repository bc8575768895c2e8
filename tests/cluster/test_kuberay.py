"""Ray's resources against KubeRay's own schema, in which unknown fields are errors here."""

import copy
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from slams_ray.errors import ConfigError
from slams_ray.runtime.service import APPLICATION

Manifests = dict[str, list[dict[str, Any]]]
SCHEMAS = {
    "kubernetes/raycluster.yaml": "kuberay_v1_rayclusters.schema.json",
    "kubernetes/rayjob.yaml": "kuberay_v1_rayjobs.schema.json",
}


def unknown_fields(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths that the schema does not name; an operator drops such fields without a word."""
    if isinstance(value, list):
        for item in value:
            yield from unknown_fields(item, schema.get("items", {}), f"{path}[]")
    if not isinstance(value, dict):
        return
    known = schema.get("properties")
    for name, inner in value.items():
        if known is None:
            yield from unknown_fields(inner, _others(schema), f"{path}.{name}")
        elif name in known:
            yield from unknown_fields(inner, known[name], f"{path}.{name}")
        else:
            yield f"{path}.{name}"


def _others(schema: dict[str, Any]) -> dict[str, Any]:
    others = schema.get("additionalProperties")
    return others if isinstance(others, dict) else {}


def problems(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [error.message for error in errors] + list(unknown_fields(document, schema))


@pytest.fixture
def schema_directory(test_data: Path) -> Path:
    directory = test_data / "schemas"
    if not directory.is_dir():
        pytest.skip(f"{directory} is absent: set SLAMS_TEST_DATA to the folder that holds schemas")
    return directory


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_follows_the_schema(manifests: Manifests, schema_directory: Path, name: str) -> None:
    schema = json.loads((schema_directory / SCHEMAS[name]).read_text())
    (document,) = manifests[name]
    assert problems(document, schema) == []


def test_what_the_schema_does_not_know_is_found(
    manifests: Manifests, schema_directory: Path
) -> None:
    name = "kubernetes/raycluster.yaml"
    schema = json.loads((schema_directory / SCHEMAS[name]).read_text())
    broken = copy.deepcopy(manifests[name][0])
    group = broken["spec"]["workerGroupSpecs"][0]
    group["minReplica"] = 1
    group["template"]["spec"]["containers"][0]["securitycontext"] = {}
    group["maxReplicas"] = "many"
    found = problems(broken, schema)
    assert "'many' is not of type 'integer'" in found
    assert ".spec.workerGroupSpecs[].minReplica" in found
    assert ".spec.workerGroupSpecs[].template.spec.containers[].securitycontext" in found
    assert len(found) == 3


def test_the_job_brings_the_cluster_of_the_other_file(manifests: Manifests) -> None:
    (cluster,), (job,) = (manifests[name] for name in SCHEMAS)
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]


def test_tokens_are_asked_for(manifests: Manifests) -> None:
    spec = manifests["kubernetes/raycluster.yaml"][0]["spec"]
    assert spec["authOptions"] == {"mode": "token"}


def test_the_head_does_no_work(manifests: Manifests) -> None:
    head = manifests["kubernetes/raycluster.yaml"][0]["spec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"


def test_groups_grow_within_bounds_and_gpus_are_there_from_the_start(manifests: Manifests) -> None:
    spec = manifests["kubernetes/raycluster.yaml"][0]["spec"]
    assert spec["enableInTreeAutoscaling"]
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    for group in groups.values():
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    requests = groups["gpu"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert requests["nvidia.com/gpu"] == "1"


def test_the_service_has_a_cluster_that_follows_the_schema(
    manifests: Manifests, schema_directory: Path
) -> None:
    service, _ = manifests["kubernetes/rayservice.yaml"]
    assert set(service["spec"]) == {"serveConfigV2", "rayClusterConfig"}
    schema = json.loads((schema_directory / SCHEMAS["kubernetes/raycluster.yaml"]).read_text())
    cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": service["metadata"]}
    assert problems(cluster | {"spec": service["spec"]["rayClusterConfig"]}, schema) == []


def test_the_service_configures_the_application_that_ray_serve_builds(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("grpc_reflection", reason="optional: pip install 'slams-ray[serve]'")
    from ray.serve.schema import ServeDeploySchema

    service, _ = manifests["kubernetes/rayservice.yaml"]
    given = yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(given).applications
    assert application.name == APPLICATION
    module, _, name = application.import_path.partition(":")
    build = getattr(importlib.import_module(module), name)
    monkeypatch.delenv("SLAMS_SERVE_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="would answer anyone"):
        build(application.args)
    monkeypatch.setenv("SLAMS_SERVE_TOKEN", "secret")
    build(application.args)
    with pytest.raises(ConfigError, match="expected model, and any of"):
        build(application.args | {"port": 1})
