"""Arrows only go down: who may import whom, read from the source and enforced."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {
    "slams_ray.errors",
    "slams_ray.redaction",
    "slams_ray.retries",
    "slams_ray.storage",
}
FOUNDATION = BASE | {"slams_ray.artifacts", "slams_ray.config", "slams_ray.metrics"}
SHARED_ROOMS = {
    "slams_ray.data",
    "slams_ray.networks",
    "slams_ray.training",
    "slams_ray.seeds",
    "slams_ray.inference",
}
SUBJECTS = {"slams_ray.systems", "slams_ray.refinement", "slams_ray.segmentation"}
ALLOWED = {
    "slams_ray.errors": set(),
    "slams_ray.redaction": set(),
    "slams_ray.retries": set(),
    "slams_ray.provenance": set(),
    "slams_ray.metrics": set(),
    "slams_ray.config": {"slams_ray.errors", "slams_ray.redaction"},
    "slams_ray.storage": {"slams_ray.errors", "slams_ray.redaction", "slams_ray.retries"},
    "slams_ray.artifacts": BASE,
    "slams_ray.runtime": BASE | {"slams_ray.config", "slams_ray.artifacts"},
    "slams_ray.data": FOUNDATION,
    "slams_ray.networks": BASE | {"slams_ray.data"},
    "slams_ray.training": FOUNDATION | {"slams_ray.data", "slams_ray.networks"},
    "slams_ray.seeds": FOUNDATION | {"slams_ray.data"},
    "slams_ray.inference": FOUNDATION | {"slams_ray.data", "slams_ray.networks"},
    "slams_ray.systems": FOUNDATION | SHARED_ROOMS,
    "slams_ray.refinement": FOUNDATION | SHARED_ROOMS,
    "slams_ray.segmentation": FOUNDATION | SHARED_ROOMS,
    "slams_ray.figures": FOUNDATION | {"slams_ray.data", "slams_ray.seeds"},
    "slams_ray.model": FOUNDATION
    | {
        "slams_ray.data",
        "slams_ray.figures",
        "slams_ray.inference",
        "slams_ray.networks",
        "slams_ray.refinement.crf",
        "slams_ray.runtime.tracked_model",
    },
    "slams_ray.workers": FOUNDATION
    | {
        "slams_ray.data",
        "slams_ray.inference",
        "slams_ray.model",
        "slams_ray.networks",
        "slams_ray.refinement",
        "slams_ray.runtime.cluster",
        "slams_ray.segmentation",
    },
    "slams_ray.exports": FOUNDATION | {"slams_ray.data"},
    "slams_ray.serving": BASE | {"slams_ray.data", "slams_ray.model"},
    "slams_ray.stages": FOUNDATION
    | SHARED_ROOMS
    | SUBJECTS
    | {
        "slams_ray.exports",
        "slams_ray.figures",
        "slams_ray.model",
        "slams_ray.provenance",
        "slams_ray.runtime",
        "slams_ray.serving",
        "slams_ray.workers",
    },
    "slams_ray.studies": FOUNDATION
    | SUBJECTS
    | {"slams_ray.data", "slams_ray.figures", "slams_ray.runtime", "slams_ray.stages"},
    "slams_ray.recipes": {"slams_ray.config", "slams_ray.errors"},
    "slams_ray.benchmarks": {"slams_ray"},
    "slams_ray.faults": {"slams_ray"},
    "slams_ray.__main__": {"slams_ray.cli"},
    "slams_ray.api": {
        "slams_ray.config",
        "slams_ray.errors",
        "slams_ray.model.model",
        "slams_ray.recipes",
        "slams_ray.runtime.progress",
        "slams_ray.runtime.submitted_job",
        "slams_ray.stages",
    },
    "slams_ray.cli": BASE
    | {
        "slams_ray.artifacts",
        "slams_ray.benchmarks",
        "slams_ray.config",
        "slams_ray.faults",
        "slams_ray.recipes",
        "slams_ray.runtime.environment",
        "slams_ray.runtime.progress",
        "slams_ray.runtime.submitted_job",
        "slams_ray.stages",
        "slams_ray.studies",
    },
    "jobs": BASE
    | {
        "slams_ray.benchmarks",
        "slams_ray.cli",
        "slams_ray.config",
        "slams_ray.faults",
        "slams_ray.recipes",
        "slams_ray.stages",
        "slams_ray.studies",
    },
}
"""Room -> what of this project it may import besides itself."""

ONLY_IN = {
    "fastapi": ("slams_ray.serving",),
    "ray": ("slams_ray.runtime",),
    "mlflow": (
        "slams_ray.model.pyfunc_code",
        "slams_ray.runtime.retry_queue",
        "slams_ray.runtime.system_metrics",
        "slams_ray.runtime.tracked_model",
        "slams_ray.runtime.tracking",
        "slams_ray.runtime.tracking_database",
        "slams_ray.runtime.tracking_experiment",
        "slams_ray.runtime.watchdog",
    ),
    "matplotlib": ("slams_ray.figures", "slams_ray.runtime.tracking"),
    "pydensecrf": ("slams_ray.refinement.crf.reference", "slams_ray.benchmarks"),
    "torch": (
        "slams_ray.networks",
        "slams_ray.training",
        "slams_ray.inference",
        "slams_ray.systems",
        "slams_ray.refinement",
        "slams_ray.segmentation",
        "slams_ray.data.transforms",
        "slams_ray.model",
        "slams_ray.runtime.batch_copies",
        "slams_ray.runtime.devices",
        "slams_ray.runtime.metric_window",
        "slams_ray.runtime.trainer",
        "slams_ray.runtime.training_batches",
        "slams_ray.runtime.training_job",
        "slams_ray.stages",
        "slams_ray.workers",
        "slams_ray.benchmarks",
    ),
}
"""Module -> the only places that may import it."""

MAX_LINES = 300
VAGUE_NAMES = {"utils", "util", "misc", "helpers", "helper", "common"}


def is_within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def room_of(module: str) -> str | None:
    return next((room for room in ALLOWED if is_within(module, room)), None)


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
        room = room_of(module)
        for name in imports(source):
            is_ours = is_within(name, "slams_ray") or is_within(name, "jobs")
            permitted = {room, *ALLOWED[room]} if room else {"slams_ray.api"}
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


def test_no_module_imports_a_room_above_or_beside_its_own() -> None:
    assert violations(project_sources()) == []


def test_every_module_belongs_to_a_room() -> None:
    strangers = [m for m in project_sources() if room_of(m) is None]
    assert strangers == ["slams_ray"]


def test_importing_the_package_imports_no_other_part_of_it() -> None:
    code = "import sys, slams_ray; print(*(m for m in sys.modules if m.startswith('slams_ray')))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert set(run.stdout.split()) == {"slams_ray", "slams_ray.api"}


def test_no_module_is_longer_than_three_hundred_lines() -> None:
    lengths = {m: len(source.splitlines()) for m, source in project_sources().items()}
    assert {m: n for m, n in lengths.items() if n > MAX_LINES} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [m for m in project_sources() if VAGUE_NAMES & set(m.split("."))] == []


def test_a_clean_tree_has_no_violations() -> None:
    sources = {
        "slams_ray.seeds.a": "import numpy\nfrom slams_ray.errors import DataError",
        "slams_ray.runtime.b": "import ray\nfrom slams_ray import storage",
        "slams_ray.stages.c": "from slams_ray.runtime import b\nfrom slams_ray.seeds.a import f",
        "jobs.d": "from slams_ray.stages import c",
    }
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("slams_ray.seeds.a", "from slams_ray.networks import backbone"),
        ("slams_ray.seeds.a", "from slams_ray import networks"),
        ("slams_ray.seeds.a", "from slams_ray.systems.slams import losses"),
        ("slams_ray.networks.a", "def f():\n    from slams_ray.training import sampling"),
        ("slams_ray.data.a", "import slams_ray.networks.backbone"),
        ("slams_ray.data.a", "import importlib\nimportlib.import_module('ray.data')"),
        ("slams_ray.systems.a", "if TYPE_CHECKING:\n    from ray.train import Checkpoint"),
        ("slams_ray.systems.a", "from slams_ray.runtime.progress import Progress"),
        ("slams_ray.inference.activation_predictor", "from slams_ray import stages"),
        ("slams_ray.inference.a", "import mlflow"),
        ("slams_ray.model.a", "from slams_ray.stages import predict"),
        ("slams_ray.model.a", "from slams_ray.runtime.shards import ShardJob"),
        ("slams_ray.runtime.a", "from slams_ray.metrics import IGNORE_INDEX"),
        ("slams_ray.runtime.a", "from slams_ray import figures"),
        ("slams_ray.runtime.a", "from mlflow import MlflowClient"),
        ("slams_ray.stages.a", "import ray"),
        ("slams_ray.stages.a", "from slams_ray.studies import compare"),
        ("slams_ray.stages.a", "from jobs import command"),
        ("slams_ray.artifacts", "import torch"),
        ("slams_ray.figures", "from .core import metrics"),
        ("slams_ray", "from slams_ray import stages"),
        ("jobs.a", "from slams_ray.runtime.trainer import fit"),
        ("jobs.a", "from slams_ray.networks import backbone"),
    ],
)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    assert violations({module: source})


HEAVY = "{'torch', 'ray', 'mlflow', 'matplotlib', 'numba'}"


# Workers on CPUs import these modules. With torch each worker would hold 400 MB more.
@pytest.mark.parametrize(
    "module",
    ["slams_ray", "slams_ray.cli.command", "jobs.benchmark"]
    + [
        f"slams_ray.{name}"
        for name in (
            "data.shard_work",
            "seeds.shard_work",
            "refinement.shard_work",
            "refinement.trial",
        )
    ],
)
def test_importing_it_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("command", "start"),
    [
        ("jobs.pipeline --help", "usage: jobs.pipeline"),
        ("jobs.benchmark --help", "usage: jobs.benchmark"),
        ("jobs.compare demo --dry-run", "data.format"),
        ("jobs.ablate demo --dry-run", "data.format"),
    ],
)
def test_what_only_prints_loads_no_heavy_library(command: str, start: str) -> None:
    arguments = command.split()
    code = (
        f"import atexit, runpy, sys; sys.argv = {arguments}\n"
        f"atexit.register(lambda: print(sorted({HEAVY} & set(sys.modules)), file=sys.stderr))\n"
        f"runpy.run_module('{arguments[0]}', run_name='__main__')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stdout.startswith(start)
    assert run.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "left_out"),
    [
        ("slams_ray.workers.inference", {"ray.train", "slams_ray.stages", "slams_ray.systems"}),
        ("slams_ray.workers.refinement", {"ray.train", "slams_ray.stages", "torch"}),
        ("slams_ray.workers.segmentation", {"ray.train", "slams_ray.stages", "slams_ray.systems"}),
        ("slams_ray.workers.walk", {"ray.train", "slams_ray.stages", "slams_ray.systems"}),
        ("slams_ray.stages.pipeline", set()),
    ],
)
def test_a_process_loads_only_its_own_work(module: str, left_out: set[str]) -> None:
    # Torchvision imports torch's compiler: 1.5 s of each process, which only its networks need.
    slow = {"torchvision", "torch._dynamo"}
    code = f"import sys, {module}; print(sorted({left_out | slow} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stdout.strip() == "[]"


def test_no_stage_defines_what_its_processes_import() -> None:
    """A function that a process unpickles makes it import the module, with all that it imports."""
    builders = [
        f"{module}.{node.name}"
        for module, source in project_sources().items()
        if is_within(module, "slams_ray.stages")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
        and ast.unparse(node.returns or node).endswith("Mapper")
    ]
    assert builders == []
