"""All eight stages in order, each on the outputs of those before it, and the summary of them."""

import json
import logging
from dataclasses import dataclass, replace
from typing import Any

from slams_ray import storage
from slams_ray.artifacts import fingerprint, flatten, to_plain
from slams_ray.config import PipelineConfig
from slams_ray.data.stored_maps import SLAMS
from slams_ray.runtime.session import TrackingSession
from slams_ray.runtime.workspace_lock import workspace_lock
from slams_ray.stages import (
    evaluate,
    infer_activation,
    prepare,
    refine,
    report,
    search_refinement,
    search_threshold,
    train_activation,
    train_encoder,
    train_segmentation,
)
from slams_ray.stages.precision import resolved
from slams_ray.stages.stage import Result, Workplace

logger = logging.getLogger(__name__)

STAGES = (
    prepare.STAGE,
    train_encoder.STAGE,
    train_activation.STAGE,
    infer_activation.STAGE,
    search_threshold.STAGE,
    refine.STAGE,
    train_segmentation.STAGE,
    evaluate.STAGE,
)
SUMMARY_NAME = "summary.json"
HEADLINES = ("cam_seed_miou", "slams_seed_miou", "refined_miou", "segmentation_miou")


@dataclass(frozen=True, kw_only=True)
class PipelineResult:
    """Finished stages by name, in order; some only when the pipeline was asked to stop early."""

    results: dict[str, Result]
    summary: dict[str, Any]


def run(
    config: PipelineConfig, workspace: str, recipe: str, last_stage: str = STAGES[-1]
) -> PipelineResult:
    """Runs the stages up to `last_stage`; finished ones are kept.

    Writes `<workspace>/summary.json` when all eight have run.

    Raises:
        ConfigError: another driver works in the workspace.
    """
    with workspace_lock(workspace, recipe), open_session(config, workspace, recipe) as session:
        place = workplace(config, session)
        results = run_stages(config, place, last_stage)
        summary = _summarise(results, workspace, recipe)
        if last_stage == STAGES[-1]:
            _publish(place, config, results, summary)
        return PipelineResult(results=results, summary=summary)


def open_session(
    config: PipelineConfig, workspace: str, name: str, group: str | None = None
) -> TrackingSession:
    """The tracked run of a pipeline; a rerun with the same name and settings continues it.

    Args:
        group: id of the run it is nested under.
    """
    settings = {k: v for k, v in to_plain(config).items() if k not in ("compute", "tracking")}
    return TrackingSession(
        workspace,
        config.tracking.experiment,
        name,
        fingerprint(name, settings, {} if group is None else {"group": group}),
        flatten(to_plain(config)),
        group,
    )


def workplace(config: PipelineConfig, session: TrackingSession) -> Workplace:
    """Where the stages of a pipeline with this config work."""
    return Workplace(
        workspace=session.workspace,
        compute=config.compute,
        tracking=config.tracking,
        session=session,
    )


def run_stages(
    config: PipelineConfig, place: Workplace, last_stage: str, method: str = SLAMS
) -> dict[str, Result]:
    """The stages up to `last_stage`; the maps of `method` become pseudo labels and network."""
    results: dict[str, Result] = {}

    def done(stage: str, result: Result) -> bool:
        results[stage] = result
        return stage == last_stage

    if done(prepare.STAGE, prepare.run(place, config.data)):
        return results
    data = prepare.open_prepared(results[prepare.STAGE])
    encoder = train_encoder.run(place, config.encoder, config.seed, data)
    if done(train_encoder.STAGE, encoder):
        return results
    networks = train_activation.run(
        place, config.classifier, config.activation, config.seed, data, encoder
    )
    results[train_activation.CLASSIFIER] = networks.cam
    if done(train_activation.STAGE, networks.slams):
        return results
    inference = resolved(config.inference, place.compute)
    activations = infer_activation.run(place, inference, data, networks)
    if done(infer_activation.STAGE, activations):
        return results
    threshold = search_threshold.run(place, config.threshold, data, activations)
    done(search_threshold.STAGE, threshold)
    crf, strength = config.crf, None
    if config.search.num_samples:
        material = search_refinement.Material(
            data=data, networks=networks, activations=activations, threshold=threshold
        )
        found = search_refinement.run(place, config.search, crf, inference, material)
        results[search_refinement.STAGE] = found
        chosen = search_refinement.choice(found, crf)
        # The searched threshold is that of the SLAMs maps.
        crf, strength = chosen.crf, chosen.strength if method == SLAMS else None
        if chosen.scales != inference.scales:
            inference = replace(inference, scales=chosen.scales)
            activations = infer_activation.run(place, inference, data, networks)
            threshold = search_threshold.run(place, config.threshold, data, activations)
            results |= {infer_activation.STAGE: activations, search_threshold.STAGE: threshold}
    if last_stage == search_threshold.STAGE:
        return results
    refined = refine.run(place, crf, data, activations, threshold, method, strength)
    if done(refine.STAGE, refined):
        return results
    segmentation = replace(
        config.segmentation, inference=resolved(config.segmentation.inference, place.compute)
    )
    network = train_segmentation.run(place, segmentation, config.seed, data, refined)
    if done(train_segmentation.STAGE, network):
        return results
    done(evaluate.STAGE, evaluate.run(place, segmentation, data, network))
    return results


def _summarise(results: dict[str, Result], workspace: str, recipe: str) -> dict[str, Any]:
    metrics = {k: v for r in results.values() for k, v in r.record.metrics.items()}
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
    headlines = {name: metrics.get(name) for name in HEADLINES}
    skipped = int(metrics.get("num_skipped", 0))
    evaluated = results.get(evaluate.STAGE)
    return {
        "scored_split": evaluated.record.notes["split"] if evaluated else None,
        "recipe": recipe,
        "workspace": workspace,
        "skipped_images": skipped,
        **headlines,
        "warnings": [w for r in results.values() for w in r.record.warnings],
        "stages": stages,
    }


def _publish(
    place: Workplace, config: PipelineConfig, results: dict[str, Result], summary: dict[str, Any]
) -> None:
    """Writes the summary, and shows it in the parent run when there was something to do."""
    path = storage.join(place.workspace, SUMMARY_NAME)
    text = json.dumps(summary, indent=1).encode()
    if storage.exists(path) and storage.read_bytes(path) == text:
        return
    report.publish(place, config, results)
    parent = place.session.open()
    parent.log_metrics({k: summary[k] for k in HEADLINES if summary[k] is not None})
    data = results[prepare.STAGE]
    notes = data.record.notes
    counts = prepare.split_counts(notes)
    parent.log_dataset(config.data.format, notes["digest"], data.output_dir, counts)
    parent.set_tags({"mlflow.note.content": _note(summary)})
    storage.write_bytes(path, text)
    parent.log_file(path, "summary")


def _note(summary: dict[str, Any]) -> str:
    """The summary as Markdown, the description of the parent run."""
    scores = [
        f"| {name} | {100 * summary[name]:.2f} % |"
        for name in HEADLINES
        if summary[name] is not None
    ]
    stages = [f"| {s['stage']} | {s['seconds']:.0f} | {s['rows']} |" for s in summary["stages"]]
    return "\n".join(
        [
            "Pictures under Artifacts: montage, threshold curve, IoU. A child run per stage.",
            "",
            "| score | value |",
            "|---|---|",
            *scores,
            "",
            "| stage | seconds | images |",
            "|---|---|---|",
            *stages,
            *(f"\n**{warning}**" for warning in summary["warnings"]),
        ]
    )
