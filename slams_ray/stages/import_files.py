"""Stages import_maps and import_labels: files of another program enter the pipeline."""

from collections.abc import Sequence
from functools import partial

from slams_ray import storage
from slams_ray.artifacts import digest
from slams_ray.data.import_work import ImportLabelsMapper, ImportMapsMapper
from slams_ray.data.imported import CLASS_NAMES_FILE, LABELS_SUFFIX, MAPS_SUFFIX
from slams_ray.data.source import TRAIN
from slams_ray.data.stored_maps import IMAGE_COLUMNS, activation_schema
from slams_ray.errors import DataError
from slams_ray.metrics import segmentation_scores
from slams_ray.runtime.shards import ShardInput, ShardJob, sum_shards
from slams_ray.stages.infer_activation import activations_dir
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.refine import LABELS_DIGEST, pseudo_labels_dir
from slams_ray.stages.stage import Attempt, Outcome, Result, StageContext, run_stage
from slams_ray.training.sampling import ROWS_PER_GROUP

MAPS_STAGE, LABELS_STAGE = "import_maps", "import_labels"
SYSTEM = "imported"


def import_maps(
    context: StageContext,
    data: PreparedData,
    directory: str,
    activations: Result | None,
    systems: Sequence[str],
) -> Result:
    """Adds imported maps to those of the trained systems.

    Args:
        directory: directory with the maps of each training image.
        activations: stage that inferred the maps of `systems`; None if there are no such systems.

    Raises:
        DataError: a file is missing, damaged, of another image or of another data set.
    """
    files = _list_files(data, directory, MAPS_SUFFIX, only_labelled=True)
    inputs = {"prepare": data.images_digest(TRAIN), "files": files}
    if activations is not None:
        inputs[activations.record.stage] = activations.record.fingerprint

    def work(attempt: Attempt) -> Outcome:
        columns = tuple(IMAGE_COLUMNS)
        sources = {"images": ShardInput(directory=data.images(TRAIN), columns=columns)}
        if activations is not None:
            sources["activations"] = ShardInput(
                directory=activations_dir(activations.output_dir),
                columns=tuple(activation_schema(systems).names),
            )
        job = ShardJob(
            label=MAPS_STAGE,
            names=data.names(TRAIN),
            inputs=sources,
            output_dir=activations_dir(attempt.output_dir),
            fingerprint=attempt.fingerprint,
            nodes=attempt.nodes,
            devices=attempt.devices,
            make_work=partial(ImportMapsMapper, SYSTEM, directory),
        )
        return Outcome(num_rows=sum_shards(job, ["num_rows"])["num_rows"])

    return run_stage(context, MAPS_STAGE, {}, inputs, work)


def import_labels(context: StageContext, data: PreparedData, directory: str | None) -> Result:
    """Turns imported label maps, or the masks of the training images, into pseudo labels.

    Args:
        directory: directory with the label map of each training image; None takes the masks.

    Raises:
        DataError: a file is missing, damaged, of another image or of another data set.
    """
    inputs = {"prepare": data.scores_digest(TRAIN)}
    if directory is not None:
        inputs["files"] = _list_files(data, directory, LABELS_SUFFIX)
    make_work = partial(ImportLabelsMapper, data.description, directory)
    settings = {"source": "masks" if directory is None else "files"}
    return run_stage(
        context, LABELS_STAGE, settings, inputs, partial(_write_labels, data, make_work)
    )


def _write_labels(
    data: PreparedData, make_work: "partial[ImportLabelsMapper]", attempt: Attempt
) -> Outcome:
    job = ShardJob(
        label=LABELS_STAGE,
        names=data.names(TRAIN),
        inputs={
            "images": ShardInput(
                directory=data.images(TRAIN), columns=("image_id", "height", "width", "mask")
            )
        },
        output_dir=pseudo_labels_dir(attempt.output_dir),
        fingerprint=attempt.fingerprint,
        nodes=attempt.nodes,
        devices=attempt.devices,
        make_work=make_work,
        rows_per_group=ROWS_PER_GROUP,
    )
    labels: list[tuple[str, str]] = []
    totals = sum_shards(
        job,
        ("num_rows", "confusion"),
        lambda name, summary: labels.append((name, summary["labels_digest"])),
    )
    scored = totals["confusion"].sum() > 0
    metrics = {"label_miou": segmentation_scores(totals["confusion"]).miou} if scored else {}
    return Outcome(
        num_rows=totals["num_rows"], metrics=metrics, notes={LABELS_DIGEST: digest(labels)}
    )


def _list_files(
    data: PreparedData, directory: str, suffix: str, only_labelled: bool = False
) -> str:
    """Checks which files there are, and returns a digest of their names, sizes and times.

    Args:
        only_labelled: whether images without a label need no file.

    Raises:
        DataError: a file is missing, belongs to no training image, or the classes differ.
    """
    _check_class_names(data, directory)
    states = [s for s in storage.list_states(directory) if s[0].endswith(suffix)]
    found = {name.removesuffix(suffix) for name, _, _ in states}
    known, needed = set(), set()
    for shard in data.names(TRAIN):
        path = storage.join(data.images(TRAIN), shard)
        table = storage.read_table(path, ["image_id", "image_labels"])
        for row in table.to_pylist():
            known.add(row["image_id"])
            if row["image_labels"] or not only_labelled:
                needed.add(row["image_id"])
    for names, problem in (
        (sorted(needed - found), f"have no {suffix} file in {directory}"),
        (sorted(found - known), f"have a file in {directory} but are no training images"),
    ):
        if names:
            raise DataError(
                f"{len(names)} images {problem} (first: {names[0]}): expected one file "
                f"<image_id>{suffix} per training image"
            )
    return digest(states)


def _check_class_names(data: PreparedData, directory: str) -> None:
    path = storage.join(directory, CLASS_NAMES_FILE)
    if not storage.exists(path):
        return
    names = tuple(storage.read_bytes(path).decode().split("\n"))
    names = tuple(name.strip() for name in names if name.strip())
    if names != data.description.class_names:
        raise DataError(
            f"{path} names the classes {', '.join(names)}, but the data set has "
            f"{', '.join(data.description.class_names)}: indices would mean other classes"
        )
