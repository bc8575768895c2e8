"""Progress that another process posts arrives, whatever is read in between."""

import time
from pathlib import Path
from typing import Any

import pytest

from slams_ray.runtime.progress import Progress, followed, post_progress


@pytest.mark.slow
def test_a_torn_post_is_passed_over_and_the_next_one_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(Progress, "advance", lambda self, **state: shown.append(state))
    path = tmp_path / "progress.json"
    post_progress(str(path), 3, 1.5, "loss 0.5")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[-5:])
    with followed(str(path), "encoder", 10, "steps"):
        # Longer than between two looks.
        time.sleep(3)
        assert shown == []
        post_progress(str(path), 10, 1.5, "loss 0.25")
        deadline = time.monotonic() + 60
        while not shown and time.monotonic() < deadline:
            time.sleep(0.2)
    assert shown == [{"done": 10, "rate": 1.5, "note": "loss 0.25"}]
