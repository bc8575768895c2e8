"""Tables on the console: stages of a pipeline, scores of a study, benchmarks and faults."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slams_ray.cli.command import program_name

if TYPE_CHECKING:
    from rich.console import Console

    from slams_ray.benchmarks.harness.measure import Row
    from slams_ray.faults.injection import FaultRow
    from slams_ray.studies.comparison import Score

COST_PREFIX = "training_"
"""Metrics with this prefix are steps and seconds; the others are fractions."""


def _console(min_width: int) -> "Console":
    from rich.console import Console

    # Names and paths of the user may contain [old] or :cat:, which are no markup.
    return Console(width=max(Console().width, min_width), markup=False, emoji=False)


def print_summary(summary: dict[str, Any]) -> None:
    """Prints the stages with seconds, output and result, then the scores and warnings."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("stage", "seconds", "images", "result", "output"):
        table.add_column(heading, justify="right" if heading in ("seconds", "images") else "left")
    for stage in summary["stages"]:
        output = stage["output"].removeprefix(summary["workspace"]).lstrip("/")
        shown = "  ".join(f"{k} {v:.4g}" for k, v in list(stage["metrics"].items())[:3])
        table.add_row(
            stage["stage"], f"{stage['seconds']:.1f}", str(stage["rows"] or ""), shown, output
        )
    console = _console(130)
    console.print(table)
    for name, value in summary["scores"].items():
        if value is not None:
            console.print(f"{name:18} {100 * value:.2f} %")
    if found := summary["iou_of_classes"]:
        of_classes = ", ".join(f"{name} {100 * iou:.1f}" for name, iou in found.items())
        console.print(f"IoU of the network in %: {of_classes}")
    for warning in summary["warnings"]:
        console.print(f"warning: {warning}", style="bold red")
    if summary["scored_split"] == "train":
        console.print("no val split: the network was scored on its training images")
    if summary["skipped_images"]:
        console.print(
            f"{summary['skipped_images']} bad images were skipped: see record.json of prepare"
        )
    workspace = summary["workspace"]
    console.print(f"outputs in {workspace}")
    if summary["montage"] is None:
        return
    if all(value is None for value in summary["scores"].values()):
        console.print("no mIoU, because there are no masks")
    console.print(f"maps, labels and predictions of some images: {workspace}/{summary['montage']}")
    program, _, _ = program_name().rpartition("pipeline")
    model = shlex.quote(workspace)
    console.print(f"next: {program}predict --model {model} --images PHOTOS --output MASKS")


def print_scores(
    scores: "Sequence[Score]", baseline: str, metrics: Sequence[str] | None = None
) -> None:
    """Prints methods as rows and metrics as columns: mean ± standard deviation over random seeds.

    Scores are in percent. Further rows show the mean difference of each method to the baseline, and
    the number of random seeds for which it is positive.

    Args:
        metrics: metrics to show; None shows all.
    """
    from rich import box
    from rich.table import Table

    from slams_ray.studies.comparison import paired_differences, spreads

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    shown = [score for score in scores if metrics is None or score.metric in metrics]
    found = spreads(shown)
    columns = list(dict.fromkeys(score.column for score in shown))
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for method, entries in found.items():
        table.add_row(method, *(_shown(column, entries.get(column)) for column in columns))
    for method in found:
        if method == baseline:
            continue
        differences = [paired_differences(shown, c, method, baseline) for c in columns]
        cells = [
            _difference(c, list(d.values())) for c, d in zip(columns, differences, strict=True)
        ]
        # Networks on masks share no column with a baseline that has maps.
        if any(cells):
            table.add_row(f"{method} - {baseline}", *cells, style="bold")
    _console(150).print(table)


def _difference(column: str, values: Sequence[float]) -> str:
    from slams_ray.studies.comparison import spread

    if not values or column.startswith(COST_PREFIX):
        return ""
    ahead = sum(value > 0 for value in values)
    return f"{100 * spread(values).mean:+.2f} ({ahead}/{len(values)})"


def _shown(column: str, entry: object) -> str:
    from slams_ray.studies.comparison import Spread

    if not isinstance(entry, Spread):
        return ""
    if column.startswith(COST_PREFIX):
        return f"{entry.mean:.0f}"
    deviation = f" ± {100 * entry.deviation:.2f}" if entry.num_seeds > 1 else ""
    return f"{100 * entry.mean:.2f}{deviation}"


def print_benchmark(rows: "list[Row]") -> None:
    """Prints the ratios of a benchmark, with their goals."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("what", "against", "ratio", "quartiles", "goal", ""):
        table.add_column(heading, justify="left" if heading in ("what", "against") else "right")
    for row in rows:
        low, high = row.spread
        verdict = ("met" if row.met else "missed") if row.goal else ""
        goal = f"{row.goal:.2f}" if row.goal else ""
        cells = (f"{row.ratio:.2f}", f"{low:.2f} to {high:.2f}", goal, verdict)
        table.add_row(row.what, row.against, *cells)
    _console(130).print(table)
    print(f"ratio: time of the alternative divided by ours; {rows[0].machine}")


def print_faults(rows: "list[FaultRow]") -> None:
    """Prints one row per injected fault."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("stage", "fault", "survived", "seconds lost", "redone", "identical"):
        table.add_column(heading)
    for row in rows:
        answers = [
            Text("yes", style="green") if answer else Text("no", style="bold red")
            for answer in (row.survived, row.identical)
        ]
        table.add_row(
            row.stage, row.fault, answers[0], f"{row.seconds_lost:.0f}", str(row.redone), answers[1]
        )
    _console(100).print(table)
