"""Stage refine: turns maps into pseudo labels with a threshold and the CRF."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

from slams_ray import storage
from slams_ray.artifacts import digest, to_plain
from slams_ray.config import AffinityConfig, AmnConfig, ComputeConfig, CrfConfig
from slams_ray.data.source import TRAIN
from slams_ray.metrics import segmentation_scores
from slams_ray.refinement.pseudo_label import ConfidentPair
from slams_ray.runtime.pools import Pool, gpu_pool
from slams_ray.runtime.shards import ShardInput, ShardJob, sum_shards
from slams_ray.stages.infer_activation import activations_dir
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.search_threshold import chosen_threshold
from slams_ray.stages.settings_report import ShownRefinement, show_settings
from slams_ray.stages.stage import Attempt, Outcome, Result, StageContext, run_stage
from slams_ray.training.sampling import ROWS_PER_GROUP
from slams_ray.workers.refinement import LabelSettings, make_mapper, make_refinement

STAGE = "refine"
LABELS_DIGEST = "labels_digest"
"""Note with the digest of the pseudo labels, which does not depend on their scores."""
LOWEST_BACKGROUND = 1 / 3
"""Lowest background threshold of a confident pair, as a share of the threshold: 0.05 of 0.15 in
IRN. Where a margin reaches 0, too many pixels of background are ignored
(docs/ablations.md#confident-pairs)."""
MOST_IGNORED = 0.9
"""Share of ignored pixels above which a warning says that labels teach little (ours)."""
REFINERS_PER_GPU = 4
"""Several, because one decodes or encodes on a CPU while another uses the GPU. Not measured."""


@dataclass(frozen=True, kw_only=True)
class RefineInputs:
    """Inputs of a refinement.

    Attributes:
        activations: stage that inferred the maps.
        threshold: stage that chose the background threshold.
        system: system whose maps become pseudo labels.
        background_threshold: a search chose it, and the margins of its pair; None takes the chosen
            threshold of the maps.
    """

    data: PreparedData
    activations: Result
    threshold: Result
    system: str
    background_threshold: float | None = None

    def pair(self, config: CrfConfig) -> ConfidentPair:
        """Returns the threshold and the confident pair around it."""
        if self.background_threshold is not None:
            # A search tried this pair itself, so it stays as it is.
            return confident_pair(config, self.background_threshold, lowest_background=0.0)
        return confident_pair(config, chosen_threshold(self.threshold, self.system))


def run(
    context: StageContext,
    config: CrfConfig,
    inputs: RefineInputs,
    stage: str = STAGE,
    pair: ConfidentPair | None = None,
) -> Result:
    """Refines the maps of one system into pseudo labels.

    Args:
        stage: name of the stage, for labels that serve another purpose.
        pair: instead of the one around the threshold of the inputs.
    """
    pair = pair or inputs.pair(config)
    refinement = make_refinement(config)
    settings = to_plain(config) | {"system": inputs.system, "pair": asdict(pair)}
    digests = {
        "prepare": inputs.data.scores_digest(TRAIN),
        inputs.activations.record.stage: inputs.activations.record.fingerprint,
    }

    def work(attempt: Attempt) -> Outcome:
        outcome = _refine(context, config, inputs, pair, attempt)
        shown = ShownRefinement(
            data=inputs.data,
            activations=inputs.activations,
            threshold=inputs.threshold,
            system=inputs.system,
            refinement=refinement,
            pair=pair,
        )
        show_settings(attempt, shown, context.tracking.num_examples)
        return outcome

    return run_stage(context, stage, settings, digests, work)


def run_confident(
    context: StageContext,
    config: CrfConfig,
    inputs: RefineInputs,
    confidence: AffinityConfig | AmnConfig,
    stage: str,
) -> Result:
    """Makes the confident labels that a network learns from, with a band of 255 between.

    Args:
        config: settings of the CRF, whose own margins are not used.
        confidence: margin around the threshold of the inputs, or a fixed pair. The power form has a
            pair of its own.
        stage: name of the stage.
    """
    margin = confidence.margin
    config = replace(config, foreground_margin=margin, background_margin=margin, export="none")
    pair = inputs.pair(config)
    if confidence.pair is not None and config.form != "power":
        background, foreground = confidence.pair
        pair = replace(pair, background=background, foreground=foreground)
    return run(context, config, inputs, stage, pair)


def pseudo_labels_dir(output_dir: str) -> str:
    """Returns the directory of pseudo-label shards in an output directory."""
    return storage.join(output_dir, "pseudo_labels")


def refiners(config: CrfConfig, compute: ComputeConfig) -> Callable[[], Pool | None] | None:
    """Returns where refinement runs: CPU tasks, or GPU actors with the torch backend."""
    if config.backend != "torch":
        return None
    return gpu_pool(compute.device, compute.gpu_actors, REFINERS_PER_GPU)


def confident_pair(
    config: CrfConfig, threshold: float, lowest_background: float = LOWEST_BACKGROUND
) -> ConfidentPair:
    """Returns the confident pair around a background threshold, or of alphas in the power form.

    Args:
        lowest_background: share of the threshold below which the background threshold of the pair
            does not go, whatever the margin.
    """
    if config.form == "power":
        # A lower alpha raises the background score, so its objects are confident.
        low, high = config.alpha_pair
        return ConfidentPair(background=high, chosen=config.alpha, foreground=low)
    return ConfidentPair(
        background=max(threshold - config.background_margin, lowest_background * threshold),
        chosen=threshold,
        foreground=min(threshold + config.foreground_margin, 1.0),
    )


def _refine(
    context: StageContext,
    config: CrfConfig,
    inputs: RefineInputs,
    pair: ConfidentPair,
    attempt: Attempt,
) -> Outcome:
    data = inputs.data
    export_dir = storage.join(attempt.output_dir, "voc") if config.export != "none" else None
    settings = LabelSettings(
        description=data.description,
        system=inputs.system,
        config=config,
        pair=pair,
        export_dir=export_dir,
    )
    job = ShardJob(
        label=STAGE,
        names=data.names(TRAIN),
        inputs={
            "images": ShardInput(
                directory=data.images(TRAIN), columns=("image_id", "image", "mask")
            ),
            "activations": ShardInput(
                directory=activations_dir(inputs.activations.output_dir),
                columns=("image_id", "image_labels", inputs.system),
            ),
        },
        output_dir=pseudo_labels_dir(attempt.output_dir),
        fingerprint=attempt.fingerprint,
        nodes=attempt.nodes,
        devices=attempt.devices,
        make_work=partial(make_mapper, settings),
        pool=refiners(config, context.compute),
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
    if config.form != "power":
        metrics["refined_background_threshold"] = pair.chosen
    return Outcome(
        num_rows=totals["num_rows"],
        metrics=metrics,
        notes={"export": export_dir, LABELS_DIGEST: digest(labels)},
        warnings=warnings_of(metrics["ignored_fraction"]),
    )


def warnings_of(ignored_fraction: float) -> list[str]:
    """Returns a warning if nearly all pixels of the labels are ignored."""
    if ignored_fraction <= MOST_IGNORED:
        return []
    return [
        f"{ignored_fraction:.0%} of the pixels are ignored, so a network learns little from these "
        "labels. settings.png shows them. threshold.fixed sets another background threshold; "
        "smaller margins ignore fewer pixels, such as crf.background_margin and "
        "crf.foreground_margin"
    ]


def _export_lists(export_dir: str, data: PreparedData, job: ShardJob) -> None:
    """Writes the image list and the class names that other segmentation code reads."""
    shards = (storage.join(job.output_dir, name) for name in job.names)
    ids = (storage.read_table(shard, ["image_id"])["image_id"].to_pylist() for shard in shards)
    lists = storage.join(export_dir, "ImageSets/Segmentation", "train.txt")
    storage.write_bytes(lists, "".join(f"{i}\n" for part in ids for i in part).encode())
    names = "".join(f"{name}\n" for name in data.description.class_names)
    storage.write_bytes(storage.join(export_dir, "class_names.txt"), names.encode())
