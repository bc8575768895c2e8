"""See what a workspace contains, and remove what its last finished run does not use.

python -m jobs.workspace prune runs/demo
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from slams_ray.cli.command import guarded, program_name


@dataclass(frozen=True, kw_only=True)
class WorkspaceCommand:
    """Lists, measures or prunes a workspace, on a disk or in an object store."""

    action: tyro.conf.Positional[Literal["list", "du", "prune"]]
    """list: each output of a stage, and whether the last finished run uses it. du: size by
    directory. prune: removes outputs that are neither used nor newer than that run."""
    workspace: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="WORKSPACE")]]
    """Directory or URI."""
    dry_run: bool = True
    """Whether prune only shows what it would remove; --no-dry-run removes it."""


def _run(command: WorkspaceCommand) -> None:
    from slams_ray.stages import workspace

    if command.action != "prune":
        lines = {"list": workspace.show, "du": workspace.usage}[command.action]
        print("\n".join(lines(command.workspace)))
        return
    pruned = workspace.prune(command.workspace, command.dry_run)
    for output in pruned:
        print(f"{workspace.size(output.num_bytes)}  {output.path}")
    total = workspace.size(sum(output.num_bytes for output in pruned)).strip()
    verb = "would be removed; repeat with --no-dry-run" if command.dry_run else "removed"
    print(f"{len(pruned)} outputs, {total} {verb}")


def main() -> None:
    """Entry point of `slams workspace` and `jobs.workspace`."""
    command = tyro.cli(WorkspaceCommand, description=__doc__, prog=program_name())
    guarded(lambda: _run(command))
