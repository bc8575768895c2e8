"""Log of the attempts at a shard, in a file that survives a crash."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from slams_ray import storage
from slams_ray.errors import ArtifactError

MAX_ATTEMPTS = 4
"""Number of attempts at a shard in one run; Ray itself has no limit. Attempts that a lost node
ended do not count, nor those that identified a crashing image."""
SIGHTINGS = 2
"""Number of processes that must die at an image before it counts as a crashing image."""


class AttemptLog:
    """The attempts at one shard in one run.

    Args:
        path: JSON file that is removed when the shard is finished.
        run_token: separates the attempts of this run from those of earlier runs.
    """

    def __init__(self, path: str, run_token: str) -> None:
        self.path = path
        self.run_token = run_token
        found = {}
        # Trials of a study may make the same shard at the same time; the first to end removes it.
        with suppress(FileNotFoundError):
            found = json.loads(storage.read_bytes(path))
        fresh: dict[str, Any] = {"begun": 0, "node": None, "at": None, "died_at": {}}
        self._entry = found.get(run_token, fresh)

    def begin(self, shard: str, node: str, is_alive: Callable[[str], bool]) -> None:
        """Records an attempt that starts on a node.

        Args:
            is_alive: whether a node is still alive.

        Raises:
            ArtifactError: the shard had too many attempts.
        """
        entry = self._entry
        if entry["node"] is not None and not is_alive(entry["node"]):
            entry["begun"] -= 1
        elif entry["at"] is not None:
            entry["died_at"][entry["at"]] = entry["died_at"].get(entry["at"], 0) + 1
        num_unexplained = entry["begun"] - SIGHTINGS * len(self.crashed)
        if num_unexplained >= MAX_ATTEMPTS:
            raise ArtifactError(
                f"{shard} ended its process {num_unexplained} times: an image in it may crash "
                "native code, or memory is short. Finished shards are kept"
            )
        entry.update(begun=entry["begun"] + 1, node=node, at=None)
        self._write()

    @property
    def is_first(self) -> bool:
        return bool(self._entry["begun"] == 1)

    @property
    def crashed(self) -> frozenset[str]:
        """Images at which at least `SIGHTINGS` processes died."""
        died_at = self._entry["died_at"].items()
        return frozenset(image for image, times in died_at if times >= SIGHTINGS)

    def note(self, image: str) -> None:
        """Records the image that is processed next."""
        self._entry["at"] = image
        self._write()

    def end(self) -> None:
        """Removes the log, because the shard is finished."""
        with suppress(FileNotFoundError):
            storage.remove(self.path)

    def _write(self) -> None:
        storage.write_bytes(self.path, json.dumps({self.run_token: self._entry}).encode())
