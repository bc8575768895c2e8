"""Finds the photographs that a path names: a directory, a list, or Parquet shards."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from slams_ray import storage
from slams_ray.artifacts import digest
from slams_ray.data.image import IMAGE_SUFFIXES
from slams_ray.data.lists import read_text
from slams_ray.errors import ConfigError, DataError
from slams_ray.model.shard_work import Source, check_unique, image_ids_of
from slams_ray.runtime.finished_shards import FOOTER_READERS
from slams_ray.stages.predict_output import (
    FILES,
    PREDICTIONS,
    check_replaces_nothing,
    written_names,
)

PARQUET_SUFFIX, LIST_SUFFIX = ".parquet", ".txt"
REPLACE = "replace the file by a whole one, or take it away"
"""What to do with a damaged table of photographs."""


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """Photographs to predict: files, or the rows of Parquet shards.

    Attributes:
        sources: files; empty for shards.
        shards: names of Parquet files with the columns image_id and image; empty for files.
        directory: directory of the shards.
        states: path or shard name -> digest of what is known of its content. Remote files of a list
            have none.
    """

    sources: Sequence[Source] = ()
    shards: Sequence[str] = ()
    directory: str = ""
    states: Mapping[str, str] = field(default_factory=dict)


def find_photographs(images: str, output: str) -> Photographs:
    """Lists photographs.

    Args:
        images: directory or prefix with images, searched in depth; an image; a .txt file with a
            path a line, relative to it or absolute; a .parquet file or a directory of them.
        output: directory of the masks. Those of earlier runs are no photographs.

    Raises:
        ConfigError: images and output are the same directory.
        DataError: there is no image, two would get the same mask, the list is missing or not UTF-8,
            or images is a file of another kind.
    """
    if storage.absolute(images) == storage.absolute(output):
        raise ConfigError(
            f"output is {output}, the directory of the images: masks would overwrite them"
        )
    if images.endswith(LIST_SUFFIX):
        return _listed(images)
    if images.endswith(PARQUET_SUFFIX):
        size = storage.size_bytes(images)
        if size is None:
            raise DataError(f"{images} is missing: give a Parquet file with image_id and image")
        path = storage.absolute(images)
        state = _local_state(path) or str(size)
        directory, _, name = path.rpartition("/")
        return Photographs(shards=[name], directory=directory, states={name: state})
    if storage.exists(images):
        if not images.lower().endswith(IMAGE_SUFFIXES):
            raise DataError(
                f"{images} is a file, but --images expects a directory, a {LIST_SUFFIX} list, a "
                f"{PARQUET_SUFFIX} file, or an image: {', '.join(IMAGE_SUFFIXES)}"
            )
        directory, _, name = images.rpartition("/")
        # Only the directory: a link is called by its own name, and not by that of its target.
        return _of_paths([storage.join(storage.absolute(directory or "."), name)], images)
    return _in_directory(images, output)


def check_output(found: Photographs, output: str, output_format: str) -> list[str]:
    """Checks that a run overwrites no photograph, and returns the ids of its images.

    Raises:
        ConfigError: see `check_replaces_nothing`, or the photographs are where shards are written.
        DataError: a table has ids that are unusable, or an id is there twice.
    """
    if found.shards and storage.absolute(found.directory) == storage.absolute(
        storage.join(output, PREDICTIONS)
    ):
        raise ConfigError(
            f"output is {output}, whose shards in {PREDICTIONS} would overwrite the photographs "
            "there: choose another --output"
        )
    image_ids = [source.image_id for source in found.sources] or _ids_in_shards(found)
    if output_format == FILES:
        check_replaces_nothing(output, image_ids, (source.path for source in found.sources))
    return image_ids


def _ids_in_shards(found: Photographs) -> list[str]:
    def read(name: str) -> list[str]:
        path = storage.join(found.directory, name)
        return image_ids_of(storage.read_table(path, ["image_id"], REPLACE), path)

    with ThreadPoolExecutor(FOOTER_READERS) as readers:
        image_ids = [one for ids in readers.map(read, found.shards) for one in ids]
    check_unique(image_ids, found.directory)
    return image_ids


def _in_directory(images: str, output: str) -> Photographs:
    root, own = storage.absolute(images), storage.absolute(output)
    inside = own.removeprefix(f"{root}/") + "/" if own.startswith(f"{root}/") else None
    masks = set() if inside is None else {f"{inside}{name}" for name in written_names(own)}
    found = {
        name: digest(state) for name, *state in storage.list_states(images) if name not in masks
    }
    shards = [name for name in found if name.endswith(PARQUET_SUFFIX) and "/" not in name]
    names = [name for name in found if name.lower().endswith(IMAGE_SUFFIXES)]
    if shards and not names:
        return Photographs(shards=shards, directory=root, states=found)
    if not names:
        raise DataError(
            f"{images} holds no image, or is missing; expected {', '.join(IMAGE_SUFFIXES)}"
        )
    # Workers run in other directories.
    paths = {name: storage.join(root, name) for name in names}
    sources = [Source(image_id=name.rsplit(".", 1)[0], path=paths[name]) for name in names]
    check_unique((source.image_id for source in sources), images)
    return Photographs(sources=sources, states={paths[name]: found[name] for name in names})


def _listed(path: str) -> Photographs:
    base = storage.absolute(path).rpartition("/")[0]
    text = read_text(path, check="the path of the list")
    lines = [line.strip() for line in text.splitlines()]
    paths = [
        line if line.startswith("/") or "://" in line else storage.join(base, line)
        for line in lines
        if line
    ]
    if not paths:
        raise DataError(f"{path} is empty: write the path of an image a line")
    return _of_paths(paths, path)


def _of_paths(paths: Sequence[str], images: str) -> Photographs:
    """Returns photographs that are called as their files, from whatever directories."""
    sources = [
        Source(image_id=found.rsplit("/", 1)[-1].rsplit(".", 1)[0], path=found) for found in paths
    ]
    check_unique((source.image_id for source in sources), images)
    known = {found: _local_state(found) for found in paths}
    states = {found: state for found, state in known.items() if state is not None}
    return Photographs(sources=sources, states=states)


def _local_state(path: str) -> str | None:
    """Returns a digest of size and modification time; None if the file is remote or missing."""
    inner = path.removeprefix("file://")
    if "://" in inner:
        # A list may name a million objects, and each would take a request.
        return None
    try:
        found = Path(inner).stat()
    except OSError:
        return None
    return digest([found.st_size, found.st_mtime_ns])
