"""What became of earlier attempts at a shard, kept where a crash cannot take it."""

import json
from typing import Any

from slams_ray import storage
from slams_ray.errors import ArtifactError

MAX_ATTEMPTS = 4
"""Times a shard is begun in one run without being finished; Ray would try for ever. An image found
to crash its process does not count."""


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
        self._entry: dict[str, Any] = found.get(run_token, {"begun": 0, "at": None, "crashed": []})

    def begin(self, shard: str) -> None:
        """Notes that the shard is begun.

        Raises:
            ArtifactError: it was begun too often without being finished.
        """
        entry = self._entry
        if entry["at"] is not None:
            entry["crashed"].append(entry["at"])
            entry["at"] = None
        num_unexplained = entry["begun"] - len(entry["crashed"])
        if num_unexplained >= MAX_ATTEMPTS:
            raise ArtifactError(
                f"{shard} ended its process {num_unexplained} times; an image in it may crash "
                "native code, or memory is short. Finished shards are kept"
            )
        entry["begun"] += 1
        self._write()

    @property
    def is_first(self) -> bool:
        return bool(self._entry["begun"] == 1)

    @property
    def crashed(self) -> frozenset[str]:
        """Images that an attempt was at when its process died."""
        return frozenset(self._entry["crashed"])

    def note(self, image: str) -> None:
        """Notes the image that is worked on from now."""
        self._entry["at"] = image
        self._write()

    def end(self) -> None:
        """The shard is finished."""
        storage.remove(self.path)

    def _write(self) -> None:
        storage.write_bytes(self.path, json.dumps({self.run_token: self._entry}).encode())
