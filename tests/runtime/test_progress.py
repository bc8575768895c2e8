"""Log lines as JSON."""

import json
import logging
import os
import subprocess
import sys
from datetime import datetime

from slams_ray.runtime.progress import JsonFormatter


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
