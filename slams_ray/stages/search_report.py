"""Reports a search: search.json, and a tracked run per trial."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slams_ray import storage
from slams_ray.data.source import TRAIN
from slams_ray.runtime.trial_plan import SearchTrial
from slams_ray.stages.slices import ScoredSlices
from slams_ray.stages.stage import Attempt

UNUSED = "unused"
"""Value of a parameter without an effect in a trial. MLflow's page that compares runs leaves out
parameters without a value."""
_SCORED = "drawn at random by search.seed from the training images that have a mask"
_HELD_OUT = (
    "threshold or alpha of both the chosen and the configured refinement is the best of the same "
    "grid on the searched images; held-out images took no part in any choice"
)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Findings of a finished search.

    Attributes:
        scores: name -> mIoU or share of pixels, as fractions.
        best: id, point and confident pair of the chosen trial.
    """

    slices: ScoredSlices
    scores: Mapping[str, float]
    best: Mapping[str, Any]
    trials: Sequence[SearchTrial]


def write_findings(path: str, findings: Findings) -> None:
    """Writes search.json."""
    content = {
        "split": TRAIN,
        "scored_images": _SCORED,
        "searched_images": findings.slices.num_searched,
        "held_out_images": findings.slices.num_held_out,
        "held_out_comparison": _HELD_OUT,
        **findings.scores,
        "best": findings.best,
        "trials": [asdict(trial) for trial in findings.trials],
    }
    storage.write_bytes(path, json.dumps(content, indent=1).encode())


def track_trials(
    attempt: Attempt,
    trials: Sequence[SearchTrial],
    best: Mapping[str, Any],
    searched: Sequence[str],
) -> None:
    """Logs a child run per trial, the best point, a table of trials, and a link that compares them.

    Args:
        best: see `Findings`.
        searched: parameters with several values, the axes of the page that compares runs.
    """
    children = []
    for trial in trials:
        child = attempt.run.child(f"trial {trial.trial_id}")
        child.log_params({name: trial.point.get(name, UNUSED) for name in searched})
        for step, report in enumerate(trial.history, start=1):
            child.log_metrics(report, step)
        if trial.error is not None:
            child.set_tags({"slams.error": trial.error})
        child.finish("FINISHED" if trial.error is None else "FAILED")
        children.append(child)
    attempt.run.link_comparison(children, "Compare the trials")
    chosen = {k: v for k, v in best.items() if k not in ("trial", "point")} | best["point"]
    attempt.run.set_tags({f"best.{name}": str(value) for name, value in chosen.items()})
    attempt.run.log_table(_rows(trials), "trials.json")


def _rows(trials: Sequence[SearchTrial]) -> list[dict[str, Any]]:
    """Returns a row per trial with its last report. All rows have the same columns."""
    parameters = dict.fromkeys(name for trial in trials for name in trial.point)
    reports = dict.fromkeys(name for trial in trials for report in trial.history for name in report)
    return [
        {
            "trial": trial.trial_id,
            **parameters,
            **trial.point,
            **reports,
            **(trial.history[-1] if trial.history else {}),
            "error": trial.error,
        }
        for trial in trials
    ]
