"""Origin of an output: package versions, git commit, and a digest of the code that computes."""

import hashlib
import importlib.metadata
import subprocess
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

_VERSIONED = (
    "slams-ray",
    "ray",
    "torch",
    "torchvision",
    "mlflow",
    "numpy",
    "pyarrow",
    "pydensecrf2",
)
_PACKAGE = Path(__file__).parent
_ARITHMETIC = (
    "data",
    "inference",
    "metrics.py",
    "model/predictor.py",
    "networks",
    "refinement",
    "runtime/search_space.py",
    "runtime/trial_plan.py",
    "seeds",
    "segmentation",
    "stages/refine.py",
    "stages/search_choice.py",
    "stages/search_refinement.py",
    "stages/slices.py",
    "stages/threshold_choice.py",
    "stages/trials.py",
    "systems",
    "training",
    "workers",
)
"""Parts of the package that compute or choose results. The rest moves data, starts work and shows
results."""


def versions() -> dict[str, str]:
    """Package -> version, of the installed packages that results may depend on."""
    found = {}
    for name in _VERSIONED:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def commit() -> str | None:
    """Git commit of the installed source; None if no repository tracks it."""
    found = _git("rev-parse", "HEAD") if _is_tracked() else None
    return found.strip() or None if found is not None else None


def has_changes() -> bool | None:
    """Whether the source differs from its commit; None if no repository tracks it."""
    found = _git("status", "--porcelain", "--untracked-files=no") if _is_tracked() else None
    return None if found is None else bool(found.strip())


@lru_cache(maxsize=1)
def arithmetic() -> str:
    """12 hexadecimal digits that change when the code that computes results changes."""
    total = hashlib.sha256()
    for part in _ARITHMETIC:
        path = _PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            total.update(f"{file.relative_to(_PACKAGE)}\n".encode())
            total.update(file.read_bytes())
    return total.hexdigest()[:12]


def _is_tracked() -> bool:
    """Whether git tracks the package: a virtual environment can be inside another repository."""
    return _git("ls-files", "--error-unmatch", "__init__.py") is not None


def _git(*arguments: str) -> str | None:
    command = ["git", *arguments]
    try:
        found = subprocess.run(command, cwd=_PACKAGE, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return found.stdout if found.returncode == 0 else None
