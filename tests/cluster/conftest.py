"""The manifests under cluster/, parsed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"


@pytest.fixture(scope="session")
def manifests() -> dict[str, list[dict[str, Any]]]:
    """File name within cluster/ -> its documents."""
    return {
        str(path.relative_to(CLUSTER)): list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        for path in sorted(CLUSTER.rglob("*.yaml"))
    }
