"""Kubernetes' own objects: their schema, and what every pod of ours must keep to."""

from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest

Manifests = dict[str, list[dict[str, Any]]]
Document = dict[str, Any]
CUSTOM = ("ray.io/", "kustomize.config.k8s.io/")
RAY_CONTAINERS = {"ray-head", "ray-worker", "ray-job-submitter"}


@pytest.fixture(scope="session")
def documents(manifests: Manifests) -> list[Document]:
    return [d for name, ds in manifests.items() if name.startswith("kubernetes/") for d in ds]


@pytest.fixture(scope="session")
def pods(documents: list[Document]) -> list[Document]:
    """Every pod spec, those within Ray's resources too."""
    return [pod for document in documents for pod in pod_specs(document)]


def pod_specs(value: Any) -> Iterator[Document]:
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for inner in value.values():
            yield from pod_specs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pod_specs(inner)


def containers(pods: list[Document]) -> list[Document]:
    return [container for pod in pods for container in pod["containers"]]


def validate(document: Document) -> None:
    """Raises for unknown fields too."""
    newest = kubernetes_validate.latest_version()
    kubernetes_validate.validate(document, newest, strict=True)


def test_plain_objects_follow_their_schema(documents: list[Document]) -> None:
    plain = [d for d in documents if not d["apiVersion"].startswith(CUSTOM)]
    assert {d["kind"] for d in plain} >= {"Deployment", "StatefulSet", "Service", "NetworkPolicy"}
    for document in plain:
        validate(document)


def test_pods_follow_their_schema(pods: list[Document]) -> None:
    assert len(pods) == 11
    for spec in pods:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        validate(pod)


def test_a_misspelt_field_is_found(pods: list[Document]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": pods[0] | {"securitycontext": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(pod)


def test_everything_stands_in_one_namespace(documents: list[Document]) -> None:
    placed = [d["metadata"] for d in documents if d["kind"] not in ("Namespace", "Kustomization")]
    assert {metadata["namespace"] for metadata in placed} == {"slams"}


def test_the_kustomization_lists_what_is_applied_before_ray(manifests: Manifests) -> None:
    (kustomization,) = manifests["kubernetes/kustomization.yaml"]
    on_their_own = {"kustomization.yaml", "raycluster.yaml", "rayjob.yaml", "rayservice.yaml"}
    files = {name.removeprefix("kubernetes/") for name in manifests if name.startswith("kuber")}
    assert set(kustomization["resources"]) == files - on_their_own


def test_no_pod_runs_as_root(pods: list[Document]) -> None:
    for pod in pods:
        security = pod["securityContext"]
        assert security["runAsNonRoot"]
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}


def test_no_container_can_gain_privileges(pods: list[Document]) -> None:
    for container in containers(pods):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_only_the_head_speaks_to_kubernetes(pods: list[Document]) -> None:
    """Its autoscaler makes pods; a token in another pod would serve only an intruder."""
    for pod in pods:
        is_head = pod["containers"][0]["name"] == "ray-head"
        assert pod.get("automountServiceAccountToken", True) == is_head


def test_requests_are_limits(documents: list[Document], pods: list[Document]) -> None:
    """Ray counts limits, Kubernetes places by requests."""
    resources = [container["resources"] for container in containers(pods)]
    for document in documents:
        spec = document.get("spec", {})
        ray = spec.get("rayClusterSpec", spec.get("rayClusterConfig", spec))
        resources += [ray["autoscalerOptions"]["resources"]] if "autoscalerOptions" in ray else []
    assert len(resources) == 14
    for needs in resources:
        assert needs["requests"] == needs["limits"]
        assert {"cpu", "memory"} <= set(needs["limits"])


def test_every_server_is_probed(pods: list[Document]) -> None:
    for container in containers(pods):
        if container["name"] != "ray-job-submitter":
            assert {"readinessProbe", "livenessProbe"} <= set(container)


def test_ray_is_told_to_ask_for_tokens(pods: list[Document]) -> None:
    for container in containers(pods):
        if container["name"] in RAY_CONTAINERS:
            assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]


def test_nothing_enters_but_what_a_policy_lists(documents: list[Document]) -> None:
    policies = [d["spec"] for d in documents if d["kind"] == "NetworkPolicy"]
    everything = {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert everything in policies
    for policy in policies:
        assert policy["policyTypes"] == ["Ingress"]
        for rule in policy.get("ingress", []):
            assert all(source.get("podSelector") for source in rule["from"])


def test_services_are_not_published(documents: list[Document]) -> None:
    services = [d["spec"] for d in documents if d["kind"] == "Service"]
    assert all(service.get("type", "ClusterIP") == "ClusterIP" for service in services)
    assert not any(d["kind"] in ("Ingress", "Secret") for d in documents)


def test_prometheus_may_read_the_metrics_of_ray_nodes_and_nothing_else(
    manifests: Manifests,
) -> None:
    (kustomization,) = manifests["monitoring/kustomization.yaml"]
    files = {name.removeprefix("monitoring/") for name in manifests if name.startswith("monit")}
    assert set(kustomization["resources"]) == files - {"kustomization.yaml"}
    (policy,) = manifests["monitoring/networkpolicy.yaml"]
    validate(policy)
    (rule,) = policy["spec"]["ingress"]
    assert rule["ports"] == [{"port": 8080}]
    (monitor,) = manifests["monitoring/podmonitor.yaml"]
    assert monitor["spec"]["selector"] == policy["spec"]["podSelector"]
