"""Stage refine: images, activations and a threshold to pseudo labels."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from slams_ray import storage
from slams_ray.artifacts import digest, to_plain
from slams_ray.config import ComputeConfig, CrfConfig
from slams_ray.data.schema import DatasetDescription
from slams_ray.data.source import TRAIN
from slams_ray.data.stored_maps import SLAMS
from slams_ray.metrics import segmentation_scores
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.pseudo_label import Confidence, Refinement
from slams_ray.refinement.shard_work import RefineMapper
from slams_ray.runtime.cluster import assigned_device
from slams_ray.runtime.shards import Pool, ShardInput, ShardJob, gpu_pool, sum_shards
from slams_ray.stages.infer_activation import activations_dir
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.search_threshold import chosen_threshold, class_offsets
from slams_ray.stages.settings_report import show_settings
from slams_ray.stages.stage import Attempt, Outcome, Result, Workplace, run_stage
from slams_ray.training.sampling import ROWS_PER_GROUP

STAGE = "refine"
LABELS_DIGEST = "labels_digest"
"""Note of what the pseudo labels are, whatever they score."""
REFINERS_PER_GPU = 4
"""Each decodes and encodes on a CPU while another computes. Not measured."""


def run(
    place: Workplace,
    config: CrfConfig,
    data: PreparedData,
    activations: Result,
    threshold: Result,
    method: str = SLAMS,
    strength: float | None = None,
) -> Result:
    """Refines the maps of one method at the background threshold chosen for it, or at another.

    Args:
        strength: background threshold instead of the chosen one.
    """
    inputs = {
        "prepare": data.scores_digest(TRAIN),
        "infer_activation": activations.record.fingerprint,
    }
    cut = chosen_threshold(threshold, method) if strength is None else strength
    # Offsets per class were learnt for the chosen threshold, not for another.
    offsets = class_offsets(threshold, method) if strength is None else ()
    settings = to_plain(config) | {
        "method": method,
        "background_threshold": cut,
        "class_offsets": list(offsets),
    }
    refinement = make_refinement(config, offsets)
    strengths = confidence(config, cut)
    pool = refiners(config, place.compute)

    def work(attempt: Attempt) -> Outcome:
        outcome = _refine(config, data, activations, refinement, strengths, method, attempt, pool)
        show_settings(
            attempt,
            data,
            activations,
            threshold,
            method,
            refinement,
            strengths,
            place.tracking.num_examples,
        )
        return outcome

    return run_stage(place, STAGE, settings, inputs, work)


def pseudo_labels_dir(output_dir: str) -> str:
    return storage.join(output_dir, "pseudo_labels")


def refiners(config: CrfConfig, compute: ComputeConfig) -> Callable[[], Pool | None] | None:
    """Where refinement runs: tasks on CPUs, or with the torch backend actors on GPUs if any."""
    if config.backend != "torch":
        return None
    return gpu_pool(compute.device, compute.gpu_actors, REFINERS_PER_GPU)


def make_mapper(
    description: DatasetDescription,
    method: str,
    strengths: Confidence,
    refinement: Refinement,
    export_dir: str | None,
    export_images: bool,
) -> RefineMapper:
    """Runs once in every process that refines."""
    return RefineMapper(
        description, method, strengths, placed(refinement), export_dir, export_images
    )


def placed(refinement: Refinement) -> Refinement:
    """The refinement on the device Ray gave this process."""
    return replace(refinement, device=assigned_device())


def make_refinement(config: CrfConfig, offsets: tuple[float, ...] = ()) -> Refinement:
    """What the CRF does, apart from where seeds are cut.

    Args:
        offsets: (K,) by which the cut differs for each class; empty for none.
    """
    return Refinement(
        form=config.form,
        gt_prob=config.gt_prob,
        iterations=config.iterations,
        cam_power=config.cam_power,
        class_offsets=offsets,
        backend=config.backend,
        kernels=CrfKernels(
            gaussian_sxy_px=config.gaussian_sxy_px,
            gaussian_compat=config.gaussian_compat,
            bilateral_sxy_px=config.bilateral_sxy_px,
            bilateral_srgb=config.bilateral_srgb,
            bilateral_compat=config.bilateral_compat,
        ),
    )


def confidence(config: CrfConfig, threshold: float) -> Confidence:
    """The three strengths of a refinement around the chosen threshold."""
    if config.form == "power":
        # The lower alpha, the higher the background score: strict about objects.
        low, high = config.alpha_pair
        return Confidence(strict=low, chosen=config.alpha, lenient=high)
    return Confidence(
        strict=min(threshold + config.foreground_margin, 1.0),
        chosen=threshold,
        lenient=max(threshold - config.background_margin, 0.0),
    )


def _refine(
    config: CrfConfig,
    data: PreparedData,
    activations: Result,
    refinement: Refinement,
    strengths: Confidence,
    method: str,
    attempt: Attempt,
    pool: Callable[[], Pool | None] | None,
) -> Outcome:
    export_dir = storage.join(attempt.output_dir, "voc") if config.export != "none" else None
    job = ShardJob(
        label=STAGE,
        names=data.names(TRAIN),
        inputs={
            "images": ShardInput(
                directory=data.images(TRAIN), columns=("image_id", "image", "mask")
            ),
            "activations": ShardInput(
                directory=activations_dir(activations.output_dir),
                columns=("image_id", "image_labels", method),
            ),
        },
        output_dir=pseudo_labels_dir(attempt.output_dir),
        fingerprint=attempt.fingerprint,
        nodes=attempt.nodes,
        devices=attempt.devices,
        make_work=partial(
            make_mapper,
            data.description,
            method,
            strengths,
            refinement,
            export_dir,
            config.export == "voc",
        ),
        pool=pool,
        rows_per_group=ROWS_PER_GROUP,
    )
    labels: list[tuple[str, str]] = []
    totals = sum_shards(
        job,
        ("num_rows", "confusion", "num_pixels", "num_ignored"),
        lambda name, summary: labels.append((name, summary["labels_digest"])),
    )
    if export_dir is not None:
        _export_lists(export_dir, data, job)
    confusion = totals["confusion"]
    metrics = {"ignored_fraction": totals["num_ignored"] / totals["num_pixels"]}
    if confusion.sum():
        scores = segmentation_scores(confusion)
        metrics |= {
            "refined_miou": scores.miou,
            "refined_foreground_precision": scores.foreground_precision,
            "refined_foreground_recall": scores.foreground_recall,
        }
    return Outcome(
        num_rows=totals["num_rows"],
        metrics=metrics,
        notes={"export": export_dir, LABELS_DIGEST: digest(labels)},
    )


def _export_lists(export_dir: str, data: PreparedData, job: ShardJob) -> None:
    """The list and the class names other segmentation code asks for."""
    shards = (storage.join(job.output_dir, name) for name in job.names)
    ids = (storage.read_table(shard, ["image_id"])["image_id"].to_pylist() for shard in shards)
    lists = storage.join(export_dir, "ImageSets/Segmentation", "train.txt")
    storage.write_bytes(lists, "".join(f"{i}\n" for part in ids for i in part).encode())
    names = "".join(f"{name}\n" for name in data.description.class_names)
    storage.write_bytes(storage.join(export_dir, "class_names.txt"), names.encode())
