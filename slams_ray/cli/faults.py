"""Inject faults into a small pipeline on two local nodes, and report which ones it survives.

python -m jobs.faults --stages infer_activation refine --faults worker_killed node_killed
"""

import sys
from dataclasses import dataclass

import tyro

from slams_ray.cli.command import guarded, program_name
from slams_ray.cli.tables import print_faults


@dataclass(frozen=True, kw_only=True)
class FaultsCommand:
    """Without arguments every fault is injected into every stage, which takes hours."""

    workspace: str = "runs/faults"
    """Local directory of the pipeline without faults, a copy of it per case, and faults.json."""
    stages: tuple[str, ...] = ()
    """Stages into which faults are injected; by default all stages."""
    faults: tuple[str, ...] = ()
    """Faults to inject; by default all faults."""


def _inject(command: FaultsCommand) -> None:
    import signal
    from pathlib import Path

    from slams_ray.errors import ConfigError
    from slams_ray.faults.commands import STAGES
    from slams_ray.faults.faults import FAULTS
    from slams_ray.faults.injection import FaultInjection

    for given, known, name in (
        (command.stages, STAGES, "--stages"),
        (command.faults, tuple(FAULTS), "--faults"),
    ):
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ConfigError(f"{name} has {unknown[0]}, expected some of {', '.join(known)}")
    # The nodes have their own process groups and would outlive this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    workspace = Path(command.workspace).resolve()
    rows = FaultInjection(workspace).run(command.stages or STAGES, command.faults or tuple(FAULTS))
    print_faults(rows)
    print(f"rows in {workspace}/faults.json")


def main() -> None:
    """Entry point of `slams faults` and `jobs.faults`."""
    command = tyro.cli(FaultsCommand, description=__doc__, prog=program_name())
    guarded(lambda: _inject(command))
