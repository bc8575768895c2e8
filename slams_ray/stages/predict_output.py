"""Checks what an output of predictions may overwrite, and removes shards that are out of date.

Every run notes the ids of its images in `<output>/written/*.json` before it writes their masks, so
that a later run knows which files are masks of this program.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from slams_ray import storage
from slams_ray.data.names import check_relative_path
from slams_ray.errors import ConfigError, DataError
from slams_ray.model.shard_work import mask_names
from slams_ray.runtime.finished_shards import FOOTER_READERS, KEY
from slams_ray.stages.written import WRITTEN, note, noted

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions"
GROUP = re.compile(r"\d{6}\.parquet")
"""Name of the shard of a group of photographs."""
FILES = "files"
"""Format with masks beside the shards, which tell only which masks are finished."""


class _Files:
    """The files of an output, which is listed directory by directory."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._names: dict[str, set[str]] = {}

    def has(self, path: str) -> bool:
        directory, _, name = path.rpartition("/")
        if directory not in self._names:
            found = storage.list_names(storage.join(self._output, directory))
            self._names[directory] = set(found)
        return name in self._names[directory]


def written_names(output: str) -> set[str]:
    """Returns the relative paths of all files for images that earlier runs wrote."""
    return {name for image_id in _written_ids(output) for name in mask_names(image_id)}


def _written_ids(output: str) -> set[str]:
    return noted(storage.join(output, WRITTEN))


def check_replaces_nothing(output: str, image_ids: Iterable[str], paths: Iterable[str]) -> None:
    """Checks that masks and overlays of images replace only those of earlier runs.

    Args:
        paths: absolute paths or URIs of the photographs.

    Raises:
        ConfigError: a photograph, or a file that no run has written, would be replaced.
    """
    own = storage.absolute(output)
    image_ids = [image_id for image_id in image_ids if _is_usable(image_id)]
    photographs = set(_resolved(paths))
    for image_id in image_ids:
        for target in _resolved(storage.join(own, name) for name in mask_names(image_id)):
            if target in photographs:
                raise ConfigError(
                    f"{target} is one of the photographs, and the masks in output {output} would "
                    "overwrite it: choose another --output, or remove the file if it is a mask of "
                    "an earlier version"
                )
    written = _written_ids(own)
    files = _Files(own)
    for image_id in image_ids:
        for name in () if image_id in written else mask_names(image_id):
            if files.has(name):
                raise ConfigError(
                    f"{storage.join(own, name)} would be overwritten, but {WRITTEN}/ in the output "
                    "does not name it as a mask of this program: choose another --output, or "
                    "remove the file"
                )


def log_masks(output: str, num_masks: int, num_empty: int, num_bad: int) -> None:
    """Logs how many masks there are, and how many of them show no object."""
    logger.info(
        "masks in %s: %d, %d of them without an object; skipped images: %d",
        output,
        num_masks,
        num_empty,
        num_bad,
    )


def note_written(output: str, image_ids: Iterable[str]) -> None:
    """Notes that masks of these images are written from now on."""
    note(storage.join(output, WRITTEN), filter(_is_usable, image_ids))


def _is_usable(image_id: str) -> bool:
    """Whether a mask is written; images with another id are bad."""
    try:
        check_relative_path(image_id, image_id)
    except DataError:
        return False
    return True


def _resolved(paths: Iterable[str]) -> Iterable[str]:
    """Yields paths with their directory absolute; a file that is a link is replaced itself."""
    directories: dict[str, str] = {}
    for path in paths:
        directory, _, name = path.rpartition("/")
        if directory not in directories:
            directories[directory] = storage.absolute(directory or "/")
        yield storage.join(directories[directory], name)


def remove_unfinished(output: str, output_format: str, current: Mapping[str, str]) -> None:
    """Removes the shards of this run that are not finished, and older ones of numbered groups.

    Shards that are named after other tables of photographs stay.

    Args:
        current: shard name -> fingerprint in this run.
    """
    files = _Files(output)

    def is_kept(name: str, fingerprint: str) -> bool:
        if name not in current:
            return GROUP.fullmatch(name) is None
        if fingerprint != current[name]:
            return False
        return output_format != FILES or all(map(files.has, _masks(output, name)))

    others = [name for name in _keep_shards(output, is_kept) if name not in current]
    if others:
        logger.warning(
            "%s/%s also has %d tables of other photographs, such as %s",
            output,
            PREDICTIONS,
            len(others),
            others[0],
        )


def remove_file_shards(output: str, image_ids: Iterable[str]) -> None:
    """Removes the shards that call the masks of some images finished, which are made again."""
    remade = {name for image_id in image_ids for name in mask_names(image_id)}

    def is_kept(name: str, fingerprint: str) -> bool:
        return not _is_of_files(fingerprint) or remade.isdisjoint(_masks(output, name))

    _keep_shards(output, is_kept)


def _is_of_files(fingerprint: str) -> bool:
    return fingerprint.startswith(f"{FILES}-")


def shard_fingerprint(output_format: str, mark: str, content: str) -> str:
    """Returns a fingerprint that begins with the format."""
    return f"{output_format}-{mark}-{content}"


def _masks(output: str, shard: str) -> list[str]:
    table = storage.read_table(storage.join(output, PREDICTIONS, shard), ["image_id"])
    return [n for image_id in table.column("image_id").to_pylist() for n in mask_names(image_id)]


def _keep_shards(output: str, is_kept: Callable[[str, str], bool]) -> list[str]:
    """Removes the shards that the function of name and fingerprint does not keep.

    Parquet files without a note of this program remain: a user has put them there.

    Returns:
        names of the shards of this program that remain.
    """
    directory = storage.join(output, PREDICTIONS)
    names = [name for name in storage.list_names(directory) if name.endswith(".parquet")]

    def keeps(name: str) -> bool | None:
        metadata = storage.table_metadata(storage.join(directory, name)) or {}
        note = json.loads(metadata.get(KEY, "null"))
        return is_kept(name, note["fingerprint"]) if note else None

    with ThreadPoolExecutor(FOOTER_READERS) as readers:
        kept = dict(zip(names, readers.map(keeps, names), strict=True))
    for name in names:
        if kept[name] is False:
            storage.remove(storage.join(directory, name))
    return [name for name in names if kept[name]]
