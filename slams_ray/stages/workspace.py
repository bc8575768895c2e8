"""Lists the outputs in a workspace, and removes those that the last finished run does not use."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from slams_ray import storage
from slams_ray.artifacts import RECORD_NAME
from slams_ray.errors import ArtifactError
from slams_ray.model.source import SUMMARY_NAME, stage_outputs, used_outputs
from slams_ray.runtime.workspace_lock import workspace_lock

logger = logging.getLogger(__name__)

_FINGERPRINT = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class Output:
    """Output directory of a stage.

    Attributes:
        changed_ns: latest modification of its files, in nanoseconds since the epoch.
        is_finished: whether it has a record.
        is_used: whether the last finished run has it.
        is_newer: whether it changed after that run, as the output of a run that goes on.
    """

    stage: str
    path: str
    num_bytes: int
    num_files: int
    changed_ns: int
    is_finished: bool
    is_used: bool
    is_newer: bool

    @property
    def is_prunable(self) -> bool:
        """Whether `prune` removes it."""
        return not self.is_used and not self.is_newer


def find_outputs(workspace: str) -> list[Output]:
    """Returns the outputs of all stages, by stage and age.

    Without a finished run none is used, and all are newer.
    """
    used = used_outputs(workspace)
    known = {path.rsplit("/", 2)[-2] for path in used}
    states = storage.list_states(workspace)
    finished_ns = next((changed for name, _, changed in states if name == SUMMARY_NAME), -1)
    found: dict[tuple[str, str], list[tuple[str, int, int]]] = {}
    for name, num_bytes, changed in states:
        stage, _, rest = name.partition("/")
        fingerprint, _, inner = rest.partition("/")
        if inner and _FINGERPRINT.fullmatch(fingerprint):
            found.setdefault((stage, fingerprint), []).append((inner, num_bytes, changed))
    outputs = []
    for (stage, fingerprint), files in found.items():
        is_finished = any(name == RECORD_NAME for name, _, _ in files)
        # Other directories of this form are no outputs of stages.
        if used and not is_finished and stage not in known:
            continue
        path, changed = storage.join(workspace, stage, fingerprint), max(f[2] for f in files)
        outputs.append(
            Output(
                stage=stage,
                path=path,
                num_bytes=sum(f[1] for f in files),
                num_files=len(files),
                changed_ns=changed,
                is_finished=is_finished,
                is_used=path in used,
                is_newer=changed > finished_ns,
            )
        )
    return sorted(outputs, key=lambda output: (output.stage, output.changed_ns))


def show(workspace: str) -> Iterator[str]:
    """Yields a line for each output: size, state, path."""
    if stage_outputs(workspace) is None:
        if not storage.list_names(workspace):
            raise ArtifactError(f"{workspace} is empty or missing: name a workspace")
        yield "no run has finished here, so all outputs are newer than the last one that did"
    for output in find_outputs(workspace):
        state = "used" if output.is_used else "newer" if output.is_newer else "unused"
        unfinished = "" if output.is_finished else ", not finished"
        yield f"{size(output.num_bytes)}  {state + unfinished:20}  {output.path}"


def usage(workspace: str) -> Iterator[str]:
    """Yields a line for each directory in the workspace, largest first, and their sum."""
    totals: dict[str, int] = {}
    for name, num_bytes, _ in storage.list_states(workspace):
        top = name.partition("/")[0]
        totals[top] = totals.get(top, 0) + num_bytes
    for name, num_bytes in sorted(totals.items(), key=lambda entry: -entry[1]):
        yield f"{size(num_bytes)}  {name}"
    yield f"{size(sum(totals.values()))}  {workspace}"


def prune(workspace: str, dry_run: bool) -> list[Output]:
    """Removes outputs that the last finished run does not use and that are not newer.

    Args:
        dry_run: whether nothing is removed.

    Returns:
        the outputs that were, or would be, removed.

    Raises:
        ArtifactError: no pipeline has finished there, so nothing tells what is used.
    """
    if stage_outputs(workspace) is None:
        raise ArtifactError(
            f"{workspace} has no {SUMMARY_NAME}: name the workspace of a finished pipeline"
        )
    if dry_run:
        return _prunable(find_outputs(workspace))
    with workspace_lock(workspace, "prune"):
        outputs = _prunable(find_outputs(workspace))
        for output in outputs:
            # Without its record, an output that is removed in part does not pass for whole.
            if output.is_finished:
                storage.remove(storage.join(output.path, RECORD_NAME))
            storage.remove_directory(output.path)
            logger.info("removed %s", output.path)
    return outputs


def _prunable(outputs: Sequence[Output]) -> list[Output]:
    return [output for output in outputs if output.is_prunable]


def size(num_bytes: int) -> str:
    """Formats a size in MB, right-aligned."""
    return f"{num_bytes / 1e6:10.1f} MB"
