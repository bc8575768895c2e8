"""Freed memory that a process keeps for its next arrays."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime import page_faults

COUNT = """
import threading
from slams_ray.runtime.allocator import keep_freed_memory
from tests.runtime import page_faults

def count():
    is_kept = {keeps} and keep_freed_memory()
    print(is_kept, page_faults.of_large_arrays())

if {in_thread}:
    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
else:
    count()
"""


@pytest.mark.parametrize("in_thread", [False, True])
def test_arrays_reuse_the_pages_of_those_before(in_thread: bool) -> None:
    is_kept, number = _counted(keeps=True, in_thread=in_thread)
    if not is_kept:
        pytest.skip("this C library has no such settings")
    assert number <= page_faults.MOST_OF_KEPT_MEMORY
    assert _counted(keeps=False, in_thread=in_thread)[1] >= page_faults.FEWEST_OF_NEW_ARRAYS


def _counted(keeps: bool, in_thread: bool) -> tuple[bool, int]:
    code = COUNT.format(keeps=keeps, in_thread=in_thread)
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    is_kept, number = done.stdout.split()
    return is_kept == "True", int(number)
