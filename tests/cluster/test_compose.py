"""MLflow, PostgreSQL and MinIO on one machine."""

import copy
import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

Manifests = dict[str, list[dict[str, Any]]]
Services = dict[str, dict[str, Any]]


@pytest.fixture
def services(manifests: Manifests) -> Services:
    return manifests["compose.yaml"][0]["services"]


def problems(manifest: dict[str, Any]) -> list[str]:
    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(vendored.read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [error.message for error in validator.iter_errors(manifest)]


def test_it_follows_the_schema(manifests: Manifests) -> None:
    assert problems(manifests["compose.yaml"][0]) == []


def test_a_misspelt_field_is_found(manifests: Manifests) -> None:
    broken = copy.deepcopy(manifests["compose.yaml"][0])
    broken["services"]["mlflow"]["capdrop"] = ["ALL"]
    assert any("capdrop" in problem for problem in problems(broken))


def test_ports_are_published_on_this_machine_only(services: Services) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:5000:5000", "127.0.0.1:9000:9000"]


def test_no_service_has_privileges(services: Services) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert name == "minio" or not service["user"].startswith("0")
