"""Export the labels or the network of a finished workspace for other programs.

python -m jobs.export runs/demo --format masks --output labels
"""

from dataclasses import dataclass
from typing import Literal

import tyro

from slams_ray.cli.command import POSITIONAL_NAMES, guarded, program_name
from slams_ray.runtime.submitted_job import check_stays


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Writes stored labels or the segmentation network, with class_names.txt beside them."""

    workspace: tyro.conf.Positional[str]
    """Workspace of a finished pipeline; for onnx also model.pt or an MLflow model."""
    format: Literal["voc", "masks", "coco", "onnx"]
    """voc: palette PNGs and labelmap.txt, as CVAT's "Segmentation mask 1.1". masks: single-channel
    PNGs and data.yaml. coco: instances JSON with RLE. OpenCV reads palette PNGs as colours, where
    class 1 becomes 38 and 255 becomes 220, so use masks for OpenCV. onnx: the
    segmentation network, which maps RGB images of any size to probabilities at one scale."""
    output: str
    """Directory or URI for the files."""
    labels: Literal["pseudo", "predictions"] = "pseudo"
    """pseudo: pseudo labels of the train split. predictions: what the segmentation network predicts
    on the scored split."""
    images: bool = False
    """Also writes the images, at the size of the labels, to JPEGImages."""
    regions: Literal["classes", "connected"] = "classes"
    """Annotations of coco: all pixels of a class in an image as one, or each connected region as
    one. Neither separates objects that touch."""


def _export(command: ExportCommand) -> None:
    from slams_ray.stages import export

    check_stays("--output", command.output)
    if command.format == "onnx":
        export.run_onnx(command.workspace, command.output)
        return
    export.run(
        command.workspace,
        command.format,
        command.output,
        labels=command.labels,
        images=command.images,
        regions=command.regions,
    )


def main() -> None:
    """Entry point of `slams export` and `jobs.export`."""
    command = tyro.cli(
        ExportCommand, description=__doc__, prog=program_name(), config=POSITIONAL_NAMES
    )
    guarded(lambda: _export(command))
