"""What became of earlier attempts at a shard, kept where a crash cannot take it."""

import json
from collections.abc import Callable
from typing import Any

from slams_ray import storage
from slams_ray.errors import ArtifactError

MAX_ATTEMPTS = 4
"""Times a shard is begun in one run without being finished; Ray would try for ever. Attempts that a
node took with it do not count, nor those by which an image was found to crash its process."""
SIGHTINGS = 2
"""Times a process has to die at an image before the image is blamed and not chance."""


class AttemptLog:
    """The attempts at one shard in one run.

    Args:
        path: JSON file beside the output; it goes when the shard is finished.
        run_token: tells the attempts of this run from those of earlier ones.
    """

    def __init__(self, path: str, run_token: str) -> None:
        self.path = path
        self.run_token = run_token
        found = json.loads(storage.read_bytes(path)) if storage.exists(path) else {}
        fresh: dict[str, Any] = {"begun": 0, "node": None, "at": None, "died_at": {}}
        self._entry = found.get(run_token, fresh)

    def begin(self, shard: str, node: str, is_alive: Callable[[str], bool]) -> None:
        """Notes that the shard is begun on a node.

        Args:
            is_alive: whether a node is still there.

        Raises:
            ArtifactError: it was begun too often without being finished.
        """
        entry = self._entry
        if entry["node"] is not None and not is_alive(entry["node"]):
            entry["begun"] -= 1
        elif entry["at"] is not None:
            entry["died_at"][entry["at"]] = entry["died_at"].get(entry["at"], 0) + 1
        num_unexplained = entry["begun"] - SIGHTINGS * len(self.crashed)
        if num_unexplained >= MAX_ATTEMPTS:
            raise ArtifactError(
                f"{shard} ended its process {num_unexplained} times; an image in it may crash "
                "native code, or memory is short. Finished shards are kept"
            )
        entry.update(begun=entry["begun"] + 1, node=node, at=None)
        self._write()

    @property
    def is_first(self) -> bool:
        return bool(self._entry["begun"] == 1)

    @property
    def crashed(self) -> frozenset[str]:
        """Images that attempts were at when their processes died, often enough."""
        died_at = self._entry["died_at"].items()
        return frozenset(image for image, times in died_at if times >= SIGHTINGS)

    def note(self, image: str) -> None:
        """Notes the image that is worked on from now."""
        self._entry["at"] = image
        self._write()

    def end(self) -> None:
        """The shard is finished."""
        storage.remove(self.path)

    def _write(self) -> None:
        storage.write_bytes(self.path, json.dumps({self.run_token: self._entry}).encode())
