"""Configurations of `ray up`, by the validator that `ray up` itself uses."""

import copy
from typing import Any

import pytest

Manifests = dict[str, list[dict[str, Any]]]
FILES = ["launcher/aws.yaml", "launcher/on_premise.yaml"]
TOKEN = "~/.ray/auth_token"


def prepare(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with Ray's defaults filled in; raises where it is not valid."""
    from slams_ray.runtime.environment import set_defaults

    set_defaults()
    try:
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError as error:
        pytest.skip(f"this Ray keeps its validator elsewhere: {error}")
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_it(manifests: Manifests, name: str) -> None:
    (config,) = manifests[name]
    prepared = prepare(config)
    for commands in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        assert prepared[commands] == config[commands]


def test_ray_refuses_what_it_does_not_know(manifests: Manifests) -> None:
    with pytest.raises(Exception, match="headtype"):
        prepare(manifests["launcher/aws.yaml"][0] | {"headtype": "head"})


@pytest.mark.parametrize("name", FILES)
def test_every_node_asks_for_the_token(manifests: Manifests, name: str) -> None:
    (config,) = manifests[name]
    assert config["file_mounts"] == {TOKEN: TOKEN}
    assert f"chmod 600 {TOKEN}" in config["setup_commands"]
    starts = config["head_start_ray_commands"][1:] + config["worker_start_ray_commands"][1:]
    assert len(starts) == 2
    assert all(start.startswith("export RAY_AUTH_MODE=token; ray start ") for start in starts)


@pytest.mark.parametrize("name", FILES)
def test_the_dashboard_is_reached_by_ssh_only(manifests: Manifests, name: str) -> None:
    (config,) = manifests[name]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][1]


@pytest.mark.parametrize("name", FILES)
def test_containers_have_no_privileges(manifests: Manifests, name: str) -> None:
    options = manifests[name][0]["docker"]["run_options"]
    assert {"--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(options)
