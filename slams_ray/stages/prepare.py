"""Stage prepare: writes a data set as Parquet shards of images, labels and masks."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from slams_ray import storage
from slams_ray.artifacts import digest, to_plain
from slams_ray.config import DataConfig
from slams_ray.data import identity
from slams_ray.data.identity import FileStates, file_states, items_digest
from slams_ray.data.schema import DatasetDescription, Item, Split
from slams_ray.data.shard_work import PrepareMapper
from slams_ray.data.source import TRAIN, VAL, generate, limits, load_split, roles, shuffle
from slams_ray.errors import ConfigError, DataError
from slams_ray.runtime.shards import ShardJob, run_shards
from slams_ray.stages.split_report import counts_of, split_counts, unseen_classes
from slams_ray.stages.stage import Attempt, Outcome, Result, StageContext, run_stage
from slams_ray.training.sampling import ROWS_PER_GROUP

logger = logging.getLogger(__name__)

STAGE = "prepare"
DESCRIPTION_NAME = "dataset.json"
_NO_CONTENT = (
    "root",
    "train_list",
    "val_list",
    "score_list",
    "on_bad_image",
)
"""Settings that do not change the content of a shard. They name the place of the data, whose digest
is an input, or they say what happens to bad images."""


class Shard(NamedTuple):
    """Image shard with rows, as the record describes it."""

    name: str
    num_rows: int
    images_digest: str
    masks_digest: str


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Prepared data set, as later stages use it.

    Its digests depend on content alone. So a data set that was moved, or prepared again with the
    same result, keeps all later outputs valid.

    Attributes:
        directory: output directory of the prepare stage.
        shards: role -> all shards that have rows.
        num_masks: role -> number of images with a mask.
        max_side_px: largest longer side of stored images; None if every size was kept.
    """

    directory: str
    description: DatasetDescription
    shards: Mapping[str, Sequence[Shard]]
    num_masks: Mapping[str, int] = field(default_factory=dict)
    max_side_px: int | None = None

    def images(self, role: str) -> str:
        """Returns the directory of a role's image shards."""
        return storage.join(self.directory, "images", role)

    def names(self, role: str) -> list[str]:
        """Returns the names of a role's shards."""
        return [shard.name for shard in self.shards.get(role, ())]

    def shard_rows(self, role: str) -> list[tuple[str, int]]:
        """Returns (shard name, number of rows) of a role's shards."""
        return [(shard.name, shard.num_rows) for shard in self.shards.get(role, ())]

    def num_images(self, role: str) -> int:
        """Returns the number of images of a role."""
        return sum(rows for _, rows in self.shard_rows(role))

    def images_digest(self, *of_roles: str) -> str:
        """Returns the digest of images and labels, on which training and inference depend."""
        found = [tuple(shard)[:3] for role in of_roles for shard in self.shards.get(role, ())]
        return digest([self.description.to_json(), *found])

    def scores_digest(self, role: str) -> str:
        """Returns the digest of images, labels and masks, on which scores depend."""
        return digest([self.description.to_json(), *self.shards[role]])

    def contents(self, role: str) -> dict[str, str]:
        """Returns shard name -> digest of its images, labels and masks."""
        return {s.name: f"{s.images_digest}-{s.masks_digest}" for s in self.shards[role]}

    @property
    def scored_role(self) -> str:
        """Role on which the segmentation network is scored: val, or train without a val split."""
        return VAL if VAL in self.shards else TRAIN


def run(context: StageContext, config: DataConfig, learn_masks: bool = False) -> Result:
    """Writes the shards of all splits.

    Args:
        learn_masks: whether a network will learn masks of training photographs.

    Raises:
        DataError: the data set cannot be used, or images are bad and config.on_bad_image is "fail".
        ConfigError: there are no masks to learn. It is not left to the last training, hours later.
    """
    root = generate(config, context.workspace)
    settings = {k: v for k, v in to_plain(config).items() if k not in _NO_CONTENT}
    states = file_states(config, root)
    inputs = {"source": identity.digest(config, root, states)}
    work = partial(_work, config, root, states, inputs["source"])
    result = run_stage(context, STAGE, settings, inputs, work)
    bad = [b for split in result.record.notes["splits"].values() for b in split["bad"]]
    if bad and config.on_bad_image == "fail":
        raise DataError(
            f"{result.output_dir} was made with data.on_bad_image skip, without {len(bad)} bad "
            f"images (first: {bad[0][0]}): repair them and remove that directory, or set skip again"
        )
    if learn_masks and not result.record.notes["splits"][TRAIN]["num_masks"]:
        left = f" among those of data.score_list {config.score_list}" if config.score_list else ""
        raise ConfigError(
            f"segmentation.learn_masks is True, but no training photograph{left} has a mask: add "
            "masks, or leave the setting out"
        )
    return result


def open_prepared(result: Result) -> PreparedData:
    """Opens the output of a finished prepare stage."""
    description = storage.read_bytes(result.path(DESCRIPTION_NAME)).decode()
    notes = result.record.notes["shards"]
    return PreparedData(
        directory=result.output_dir,
        description=DatasetDescription.from_json(description),
        shards={role: [Shard(*entry) for entry in entries] for role, entries in notes.items()},
        num_masks={role: s["num_masks"] for role, s in result.record.notes["splits"].items()},
        max_side_px=result.record.config["max_side_px"],
    )


def _work(
    config: DataConfig, root: str, states: FileStates, source_digest: str, attempt: Attempt
) -> Outcome:
    splits = {role: _shuffled(load_split(config, root, role)) for role in roles(config)}
    _check_same_classes(splits)
    _warn_of_shared_images(splits)
    for remark in dict.fromkeys(remark for split in splits.values() for remark in split.remarks):
        logger.warning("%-18s %s", STAGE, remark)
    notes: dict[str, Any] = {"digest": source_digest, "shards": {}, "splits": {}}
    bad: list[list[str]] = []
    for role, split in splits.items():
        found = _write_shards(config, role, split, root, states, attempt)
        summaries = [summary for _, summary in found]
        notes["shards"][role] = [
            Shard(name, s["num_rows"], s["images_digest"], s["masks_digest"])
            for name, s in found
            if s["num_rows"]
        ]
        split_bad = [list(b) for b in split.bad] + [b for s in summaries for b in s["bad"]]
        notes["splits"][role] = _describe(split, summaries, split_bad)
        logger.info("%-18s %s: %s", STAGE, role, counts_of(notes["splits"][role]))
        bad += split_bad
        if not notes["shards"][role]:
            raise DataError(f"every image of the {role} split is bad, first: {split_bad[0]}")
    description = splits[TRAIN].description
    path = storage.join(attempt.output_dir, DESCRIPTION_NAME)
    storage.write_bytes(path, description.to_json().encode())
    if bad:
        logger.warning(
            "%-18s skipped %d bad images, listed in record.json; first: %s", STAGE, len(bad), bad[0]
        )
    attempt.run.log_dataset(config.format, source_digest, root, split_counts(notes))
    attempt.run.log_dict(
        json.loads(description.to_json()) | {"splits": notes["splits"]}, "dataset.json"
    )
    num_rows = sum(shard.num_rows for shards in notes["shards"].values() for shard in shards)
    return Outcome(
        num_rows=num_rows,
        metrics={"num_skipped": len(bad)},
        notes=notes,
        warnings=unseen_classes(notes["splits"][TRAIN]["images_per_class"]),
    )


def _check_same_classes(splits: dict[str, Split]) -> None:
    names = {role: split.description.class_names for role, split in splits.items()}
    if len(set(names.values())) > 1:
        different = set.symmetric_difference(*map(set, names.values()))
        raise DataError(
            f"the splits have different classes: not all have {', '.join(sorted(different))}. "
            "Choose common classes with data.classes, or correct the annotation files"
        )


def _warn_of_shared_images(splits: dict[str, Split]) -> None:
    """Warns of val images that are also training images, as from a CSV without a split column."""
    shared = set.intersection(*({item.image_id for item in s.items} for s in splits.values()))
    if len(splits) > 1 and shared:
        logger.warning(
            "%-18s %d val images are also training images: the score on val will be too high",
            STAGE,
            len(shared),
        )


def _shuffled(split: Split) -> Split:
    return replace(split, items=shuffle(split.items))


def _names(config: DataConfig, split: Split) -> list[str]:
    num_shards = -(-len(split.items) // config.images_per_shard)
    return [f"{number:06d}.parquet" for number in range(num_shards)]


def _write_shards(
    config: DataConfig,
    role: str,
    split: Split,
    root: str,
    states: FileStates,
    attempt: Attempt,
) -> list[tuple[str, dict[str, Any]]]:
    """Writes the shards of a split, and returns name and summary of each."""
    names = _names(config, split)
    # Shards have equal sizes, because training reads several at a time up to the shortest one.
    bounds = np.linspace(0, len(split.items), len(names) + 1).astype(int)
    payloads: dict[str, Sequence[Item]] = {
        name: split.items[low:high]
        for name, low, high in zip(names, bounds[:-1], bounds[1:], strict=True)
    }
    contents = {name: items_digest(items, root, states) for name, items in payloads.items()}
    job = ShardJob(
        label=f"{STAGE} {role}",
        names=names,
        inputs={},
        output_dir=storage.join(attempt.output_dir, "images", role),
        fingerprint=attempt.fingerprint,
        nodes=attempt.nodes,
        devices=attempt.devices,
        make_work=partial(
            PrepareMapper,
            split.description,
            config.on_bad_image,
            upright=config.format == "folder",
            max_side_px=config.max_side_px,
            limits=limits(config),
        ),
        payloads=payloads,
        fingerprints=attempt.shard_fingerprints(contents),
        earlier=attempt.earlier_shards("images", role),
        rows_per_group=ROWS_PER_GROUP,
    )
    return list(run_shards(job))


def _describe(
    split: Split, summaries: Sequence[dict[str, Any]], bad: list[list[str]]
) -> dict[str, Any]:
    """Returns counts of a split for the record and for MLflow."""
    per_class = np.sum([s["images_per_class"] for s in summaries], axis=0).tolist()
    return {
        "num_images": sum(s["num_rows"] for s in summaries),
        "num_masks": sum(s["num_masks"] for s in summaries),
        "num_dropped_without_label": split.num_dropped,
        "bad": bad,
        "images_per_class": dict(
            zip(split.description.class_names[1:], per_class[1:], strict=True)
        ),
    }
