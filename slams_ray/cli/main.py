"""Command `slams`: the jobs of `python -m jobs.X` as `slams X`."""

import sys
from importlib import import_module
from importlib.metadata import version

from slams_ray.errors import how_to_install

COMMANDS = {
    "pipeline": "photographs and image labels to a segmentation network",
    "predict": "segment photographs with a trained network",
    "export": "labels or the network for CVAT, OpenCV, COCO tools and ONNX",
    "serve": "a trained network over HTTP",
    "workspace": "list, measure and prune a workspace",
    "compare": "systems and refinements over random seeds, in one table",
    "ablate": "what each part of the method gains",
    "convert": "pickled maps of other programs to files without pickle",
    "benchmark": "ratios of time and memory to named alternatives",
    "faults": "which faults a pipeline survives",
}
"""Command -> what it does. Its module in `slams_ray.cli` has a function `main`."""


def main() -> None:
    """Runs the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name == "--version":
        print(f"slams_ray {version('slams_ray')}")
        return
    if name not in COMMANDS:
        if not name.startswith("-"):
            print(f"there is no command {name!r}\n", file=sys.stderr)
        listed = "\n".join(f"  {command:10} {about}" for command, about in COMMANDS.items())
        print(
            f"usage: slams COMMAND ...\n\n{listed}\n\nslams COMMAND --help explains a command; "
            "slams --version"
        )
        sys.exit(0 if name in ("-h", "--help") else 2)
    sys.argv = [f"slams {name}", *sys.argv[2:]]
    try:
        command = import_module(f"slams_ray.cli.{name}")
    except ModuleNotFoundError as error:
        print(f"{error}: slams {name} needs more: {how_to_install('train')}", file=sys.stderr)
        sys.exit(1)
    command.main()
