"""What a data-loading process imports."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slams_ray.training.data_loading import SampleLoader
from tests.tiny_tasks import TRAININGS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_loader_needs_no_torch(kind: str, make_any_task: Callable[..., Any]) -> None:
    """With torch, each data-loading process would start two seconds later."""
    loader = SampleLoader(sources=(), sampler=make_any_task(kind).sampler, seed=0)
    code = (
        "import pickle, sys; pickle.load(sys.stdin.buffer); "
        "print(sorted({'torch', 'torchvision'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(loader),
        capture_output=True,
        cwd=ROOT,
        check=True,
    )
    assert run.stdout.strip() == b"[]"
