"""Summary of a pipeline: summary.json, and the description of the parent run."""

import json
from typing import Any

from slams_ray import storage
from slams_ray.config import PipelineConfig
from slams_ray.model.source import SUMMARY_NAME
from slams_ray.runtime.tracking import Run
from slams_ray.stages import evaluate, prepare, publish_model, report
from slams_ray.stages.config_file import CONFIG_NAME
from slams_ray.stages.pipeline_run import teacher_prefix
from slams_ray.stages.split_report import split_counts
from slams_ray.stages.stage import Result, StageContext

_CHOICES = ("background_threshold", "ignored_fraction")
"""Ends of the names of metrics that say how labels were made, with masks and without."""


def headlines(config: PipelineConfig) -> list[str]:
    """Returns the main metrics: seeds of every system, maps of each refinement, labels, network."""
    if not config.has_maps:
        return ["label_miou", "segmentation_miou"]
    seeds = [f"{name}_seed_miou" for name in config.systems]
    maps = [f"{config.system}_{step}_miou" for step in config.refinement.map_steps]
    after_crf = ["segmentation_crf_miou"] if config.segmentation.crf.iterations else []
    return [*seeds, *maps, "refined_miou", "segmentation_miou", *after_crf]


def summarise(
    context: StageContext, config: PipelineConfig, results: dict[str, Result], recipe: str
) -> dict[str, Any]:
    """Returns the content of summary.json.

    A stage that ran twice, as on maps of other scales, has its last output in `stages`, and all in
    `outputs`.
    """
    own = results
    if config.teacher is not None:
        prefix = teacher_prefix(config.teacher)
        own = {stage: r for stage, r in results.items() if not stage.startswith(prefix)}
    metrics = {k: v for r in own.values() for k, v in r.record.metrics.items()}
    stages = [
        {
            "stage": stage,
            "seconds": result.record.seconds,
            "output": result.output_dir,
            "rows": result.record.num_rows,
            "metrics": result.record.metrics,
        }
        for stage, result in results.items()
    ]
    skipped = int(metrics.get("num_skipped", 0))
    evaluated = results.get(evaluate.STAGE)
    return {
        "scored_split": evaluated.record.notes["split"] if evaluated else None,
        "recipe": recipe,
        "workspace": context.workspace,
        "montage": report.MONTAGE_NAME if evaluated else None,
        # Another number changes the summary, so that the montage is drawn again.
        "montage_images": context.tracking.num_examples if evaluated else 0,
        "skipped_images": skipped,
        "scores": {name: metrics.get(name) for name in headlines(config)},
        "iou_of_classes": evaluate.iou_of_classes(evaluated) if evaluated else {},
        "choices": {k: v for k, v in metrics.items() if k.endswith(_CHOICES)},
        "warnings": [w for r in results.values() for w in r.record.warnings],
        "stages": stages,
        "outputs": sorted("/".join(path.split("/")[-2:]) for path in context.own_outputs),
    }


def publish(
    context: StageContext,
    config: PipelineConfig,
    results: dict[str, Result],
    summary: dict[str, Any],
) -> None:
    """Writes the summary and the montage, and logs both to the parent run, unless they are there.

    Where `tracking.registered_name` is set, the network is registered in either case.
    """
    path = storage.join(context.workspace, SUMMARY_NAME)
    text = json.dumps(summary, indent=1).encode()
    is_known = storage.exists(path) and storage.read_bytes(path) == text
    is_drawn = storage.exists(storage.join(context.workspace, report.MONTAGE_NAME))
    if not is_known or not is_drawn:
        report.publish(context, config, results)
    if is_known:
        # A name can be given after the network was trained.
        if context.tracking.registered_name is not None:
            publish_model.publish(context, results)
        return
    parent = context.session.open()
    log_scores(parent, summary)
    data = results[prepare.STAGE]
    notes = data.record.notes
    counts = split_counts(notes)
    parent.log_dataset(config.data.format, notes["digest"], data.output_dir, counts)
    parent.set_tags({"mlflow.note.content": _note(summary)})
    publish_model.publish(context, results)
    storage.write_bytes(path, text)
    parent.log_file(path, "summary")
    parent.log_file(storage.join(context.workspace, CONFIG_NAME))


def log_scores(parent: Run, summary: dict[str, Any]) -> None:
    """Logs the main metrics that there are, and how labels were made, to the parent run."""
    scores = {k: v for k, v in summary["scores"].items() if v is not None}
    parent.log_metrics(summary["choices"] | scores)


def _note(summary: dict[str, Any]) -> str:
    """Returns the summary as Markdown, for the description of the parent run."""
    scores = [
        f"| {name} | {100 * value:.2f} % |"
        for name, value in summary["scores"].items()
        if value is not None
    ]
    choices = [f"| {name} | {value:.4f} |" for name, value in summary["choices"].items()]
    stages = [
        f"| {s['stage']} | {s['seconds']:.0f} | {s['rows'] or ''} |" for s in summary["stages"]
    ]
    return "\n".join(
        [
            "Pictures under Artifacts: montage, threshold curve, IoU. A child run per stage.",
            "",
            *([] if scores else ["No mIoU, because there are no masks.", ""]),
            "| result | value |",
            "|---|---|",
            *scores,
            *choices,
            "",
            "| stage | seconds | images |",
            "|---|---|---|",
            *stages,
            *(f"\n**{warning}**" for warning in summary["warnings"]),
        ]
    )
