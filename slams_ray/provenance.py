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
    "networks",
    "refinement",
    "seeds",
    "segmentation",
    "systems",
    "training",
    "workers",
)
"""Parts of the package that compute results. The rest moves data, starts work and shows results."""


def versions() -> dict[str, str]:
    """Package -> version, of the installed packages that results may depend on."""
    found = {}
    for name in _VERSIONED:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def commit() -> str | None:
    """Git commit of the installed source; None outside a repository."""
    found = _git("rev-parse", "HEAD")
    return found.strip() or None if found is not None else None


def has_changes() -> bool | None:
    """Whether the source differs from its commit; None outside a repository."""
    found = _git("status", "--porcelain", "--untracked-files=no")
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


def _git(*arguments: str) -> str | None:
    command = ["git", *arguments]
    try:
        found = subprocess.run(command, cwd=_PACKAGE, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return found.stdout if found.returncode == 0 else None
