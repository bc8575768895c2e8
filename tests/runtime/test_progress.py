"""Progress that another process posts arrives, whatever is read in between."""

import json
import logging
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from slams_ray.runtime.progress import JsonFormatter, Progress, followed, post_progress


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


def test_a_json_line_holds_the_message_and_the_traceback() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.getLogger("slams_ray.x").makeRecord(
            "slams_ray.x", logging.ERROR, "f", 1, "%d of %d", (3, 4), sys.exc_info()
        )
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "3 of 4"
    assert line["level"] == "ERROR"
    assert "ValueError: broken" in line["traceback"]
    assert abs(datetime.fromisoformat(line["time"]).timestamp() - record.created) < 0.001


def test_lines_of_a_job_are_json_on_request() -> None:
    code = (
        "import logging; from slams_ray.runtime.progress import log_to_stdout; log_to_stdout(); "
        "logging.getLogger('slams_ray.x').info('hello')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"SLAMS_LOG": "json"},
    ).stdout
    assert json.loads(shown)["message"] == "hello"
