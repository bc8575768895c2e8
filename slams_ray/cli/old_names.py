"""Settings that were renamed or removed."""

from collections.abc import Sequence

from slams_ray.errors import ConfigError

RENAMED = {
    "activation.cut-width": "activation.binarisation-width",
    "compute.feed-tasks": "compute.data-loading-tasks",
    "search.num-strengths": "search.num-thresholds",
}
REMOVED = {
    "threshold.per-class": "thresholds per class lost mIoU on images they were not learnt on",
}


def check_names(arguments: Sequence[str]) -> None:
    """Raises ConfigError for a setting of an earlier version, with its new name if it has one."""
    for argument in arguments:
        if not argument.startswith("--"):
            continue
        name = argument.split("=")[0].replace("_", "-").removeprefix("--no-").removeprefix("--")
        if name in RENAMED:
            raise ConfigError(f"--{name} was renamed: use --{RENAMED[name]}")
        if name in REMOVED:
            raise ConfigError(f"--{name} was removed: {REMOVED[name]}")
