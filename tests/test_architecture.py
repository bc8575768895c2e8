"""Arrows only go down: who may import whom, read from the source and enforced."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {"slams_ray.errors", "slams_ray.redaction", "slams_ray.retries", "slams_ray.storage"}
LEAVES = BASE | {"slams_ray.core", "slams_ray.models", "slams_ray.data"}
ALLOWED = {
    "slams_ray.errors": set(),
    "slams_ray.redaction": set(),
    "slams_ray.config": {"slams_ray.errors", "slams_ray.redaction"},
    "slams_ray.retries": set(),
    "slams_ray.storage": {"slams_ray.errors", "slams_ray.redaction", "slams_ray.retries"},
    "slams_ray.artifacts": BASE,
    "slams_ray.provenance": set(),
    "slams_ray.core": {"slams_ray.errors"},
    "slams_ray.models": BASE | {"slams_ray.core"},
    "slams_ray.data": BASE | {"slams_ray.core", "slams_ray.config", "slams_ray.artifacts"},
    "slams_ray.figures": BASE | {"slams_ray.core", "slams_ray.data"},
    "slams_ray.predictors": LEAVES,
    "slams_ray.mappers": LEAVES | {"slams_ray.predictors", "slams_ray.artifacts"},
    "slams_ray.tasks": LEAVES | {"slams_ray.config"},
    "slams_ray.runtime": BASE | {"slams_ray.config", "slams_ray.artifacts"},
    "slams_ray.stages": LEAVES
    | {
        "slams_ray.config",
        "slams_ray.artifacts",
        "slams_ray.figures",
        "slams_ray.mappers",
        "slams_ray.predictors",
        "slams_ray.provenance",
        "slams_ray.runtime",
        "slams_ray.tasks",
    },
    "slams_ray.studies": {"slams_ray"},
    "slams_ray.benchmarks": {"slams_ray"},
    "slams_ray.drills": {"slams_ray"},
    "jobs": BASE
    | {
        "slams_ray.stages",
        "slams_ray.studies",
        "slams_ray.benchmarks",
        "slams_ray.drills",
        "slams_ray.core.comparison",
        "slams_ray.config",
        "slams_ray.artifacts",
        "slams_ray.runtime.environment",
        "slams_ray.runtime.progress",
    },
}
"""Layer -> what of this project it may import besides itself."""

ONLY_IN = {
    "ray": ("slams_ray.runtime",),
    "mlflow": (
        "slams_ray.runtime.outbox",
        "slams_ray.runtime.tracking",
        "slams_ray.runtime.tracking_database",
        "slams_ray.runtime.watchdog",
    ),
    "matplotlib": ("slams_ray.figures", "slams_ray.runtime.tracking"),
    "torch": (
        "slams_ray.core",
        "slams_ray.models",
        "slams_ray.data.transforms",
        "slams_ray.predictors",
        "slams_ray.tasks",
        "slams_ray.runtime.devices",
        "slams_ray.runtime.metric_window",
        "slams_ray.runtime.trainer",
        "slams_ray.runtime.training_job",
        "slams_ray.stages",
        "slams_ray.benchmarks",
    ),
    "slams_ray.config": (
        "slams_ray.config",
        "slams_ray.data.identity",
        "slams_ray.data.source",
        "slams_ray.tasks",
        "slams_ray.runtime",
        "slams_ray.stages",
        "slams_ray.studies",
        "slams_ray.benchmarks",
        "slams_ray.artifacts",
        "jobs",
    ),
}
"""Module -> the only places that may import it."""

MAX_LINES = 300
VAGUE_NAMES = {"utils", "util", "misc", "helpers", "helper", "common"}


def is_within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def layer_of(module: str) -> str | None:
    return next((layer for layer in ALLOWED if is_within(module, layer)), None)


def imports(source: str) -> list[str]:
    """Dotted names of everything imported, inside functions and TYPE_CHECKING blocks too."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Call) and node.args:
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            argument = node.args[0]
            if function in ("import_module", "__import__") and isinstance(argument, ast.Constant):
                names.append(str(argument.value))
    return names


def violations(sources: dict[str, str]) -> list[str]:
    """One sentence per import that breaks a rule, of module name -> source."""
    found = []
    for module, source in sources.items():
        layer = layer_of(module)
        for name in imports(source):
            is_ours = is_within(name, "slams_ray") or is_within(name, "jobs")
            permitted = {layer, *ALLOWED[layer]} if layer else {"slams_ray.errors"}
            if name.startswith("."):
                found.append(f"{module} imports {name} relatively")
            if is_ours and not any(is_within(name, p) for p in permitted if p):
                found.append(f"{module} imports {name}")
            found += [
                f"{module} imports {name}, reserved for {', '.join(places)}"
                for owned, places in ONLY_IN.items()
                if is_within(name, owned) and not any(is_within(module, p) for p in places)
            ]
    return found


def project_sources() -> dict[str, str]:
    sources = {}
    for package in ("slams_ray", "jobs"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(p for p in parts if p != "__init__")
            sources[module] = path.read_text(encoding="utf-8")
    return sources


def test_no_module_imports_what_lies_above_or_beside_it() -> None:
    assert violations(project_sources()) == []


def test_every_module_belongs_to_a_layer() -> None:
    strangers = [m for m in project_sources() if layer_of(m) is None]
    assert strangers == ["slams_ray"]


def test_importing_the_package_itself_imports_nothing() -> None:
    assert imports(project_sources()["slams_ray"]) == []


def test_no_module_is_longer_than_three_hundred_lines() -> None:
    lengths = {m: len(source.splitlines()) for m, source in project_sources().items()}
    assert {m: n for m, n in lengths.items() if n > MAX_LINES} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [m for m in project_sources() if VAGUE_NAMES & set(m.split("."))] == []


def test_a_clean_tree_has_no_violations() -> None:
    sources = {
        "slams_ray.core.a": "import numpy\nfrom slams_ray.errors import DataError",
        "slams_ray.runtime.b": "import ray\nfrom slams_ray import storage",
        "slams_ray.stages.c": "from slams_ray.runtime import b\nfrom slams_ray.core.a import f",
        "jobs.d": "from slams_ray.stages import c",
    }
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("slams_ray.core.a", "from slams_ray.models import backbone"),
        ("slams_ray.core.a", "from slams_ray import data"),
        ("slams_ray.core.a", "from slams_ray.config import CrfConfig"),
        ("slams_ray.models.a", "def f():\n    from slams_ray.data.image import decode_image"),
        ("slams_ray.data.a", "import slams_ray.models.backbone"),
        ("slams_ray.data.a", "import importlib\nimportlib.import_module('ray.data')"),
        ("slams_ray.tasks.a", "if TYPE_CHECKING:\n    from ray.train import Checkpoint"),
        ("slams_ray.tasks.a", "from slams_ray.runtime.progress import Progress"),
        ("slams_ray.predictors", "from slams_ray import stages"),
        ("slams_ray.mappers.a", "import mlflow"),
        ("slams_ray.runtime.a", "from slams_ray.core.metrics import IGNORE_INDEX"),
        ("slams_ray.runtime.a", "from slams_ray import figures"),
        ("slams_ray.runtime.a", "from mlflow import MlflowClient"),
        ("slams_ray.stages.a", "import ray"),
        ("slams_ray.stages.a", "from slams_ray.studies import compare"),
        ("slams_ray.stages.a", "from jobs import command"),
        ("slams_ray.artifacts", "import torch"),
        ("slams_ray.figures", "from .core import metrics"),
        ("slams_ray", "from slams_ray import stages"),
        ("jobs.a", "from slams_ray.runtime.trainer import fit"),
        ("jobs.a", "from slams_ray.models import backbone"),
    ],
)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    assert violations({module: source})


HEAVY = "{'torch', 'ray', 'mlflow', 'matplotlib', 'numba'}"


# Workers on CPUs import what stands last, and with torch each would hold 400 MB more.
@pytest.mark.parametrize(
    "module",
    ["slams_ray", "jobs.command", "jobs.benchmark"]
    + [f"slams_ray.mappers.{name}" for name in ("prepare", "count", "trial", "refine")],
)
def test_importing_it_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("job", ["jobs.pipeline", "jobs.benchmark_training"])
def test_the_help_of_a_job_loads_no_heavy_library(job: str) -> None:
    code = (
        f"import atexit, runpy, sys; sys.argv = ['{job}', '--help']\n"
        f"atexit.register(lambda: print(sorted({HEAVY} & set(sys.modules)), file=sys.stderr))\n"
        f"runpy.run_module('{job}', run_name='__main__')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stdout.startswith("usage: python -m jobs.")
    assert run.stderr.strip() == "[]"
