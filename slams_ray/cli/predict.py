"""Segment photographs with a trained network: palette PNG masks and overlays.

python -m jobs.predict --model runs/demo --images photos --output masks
"""

from dataclasses import dataclass
from typing import Literal

import tyro

from slams_ray.cli.command import guarded, program_name
from slams_ray.runtime.submitted_job import check_stays

USE_CLUSTER = {"auto": None, "always": True, "never": False}
NETWORK_SETTINGS = ("scales", "flip", "precision", "max_side_px")


@dataclass(frozen=True, kw_only=True)
class PredictCommand:
    """Makes a mask for every image.

    The network infers as it was scored: settings that are not given come from the checkpoint or the
    workspace.
    """

    model: str
    """Workspace of a finished pipeline, model.pt of a train_segmentation stage, or MLflow model
    such as models:/name@best."""
    images: str
    """Directory or URI with .jpg, .png, .webp or .bmp files, searched in depth; one such file; a
    .txt file with a path a line; or .parquet files with the columns image_id and image."""
    output: str
    """Directory or URI for <name>.png (palette mask) and <name>_overlay.jpg. Only files of earlier
    runs, which <output>/written names, are overwritten."""
    output_format: Literal["files", "parquet"] = "files"
    """parquet writes masks into <output>/predictions/*.parquet instead, which needs the cluster."""
    cluster: Literal["auto", "always", "never"] = "auto"
    """Whether Ray distributes the work; a repeated command then continues. auto does so from 1000
    images on, and for Parquet."""
    on_bad_image: Literal["skip", "fail"] = "skip"
    """Whether a bad image is named and skipped, or ends the command."""
    images_per_shard: int = 64
    """Images that a process predicts before it records its progress, on a cluster or a GPU."""
    tile_px: int | None = None
    """Segments larger images in overlapping tiles of this side, a multiple of 32, so that memory
    does not grow. None takes images whole."""
    max_image_pixels: int = 64_000_000
    """Largest number of pixels of a photograph, up to 178956970; larger ones count as bad images.
    Memory grows with it."""
    scales: tuple[float, ...] | None = None
    """Image scales whose scores are averaged. By default this and the three settings below are as
    the network was scored, but float32 where the device would emulate bfloat16."""
    flip: bool | None = None
    """Whether the mirrored image is included as well."""
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    """Number format of the network; auto is bfloat16 on devices that multiply it natively."""
    max_side_px: int | None = None
    """Longest side at which photographs are segmented, at least 32; larger ones are shrunk. Masks
    have full size."""
    crf: bool = False
    """Refines each mask by the CRF that DeepLab uses at test time, which takes seconds an image."""


def _predict(command: PredictCommand) -> None:
    from slams_ray.stages import predict
    from slams_ray.stages.predict_settings import PredictSettings

    check_stays("--output", command.output)
    how = PredictSettings(
        crf=command.crf,
        tile_px=command.tile_px,
        max_image_pixels=command.max_image_pixels,
        use_cluster=USE_CLUSTER[command.cluster],
        output_format=command.output_format,
        on_bad_image=command.on_bad_image,
        images_per_shard=command.images_per_shard,
        changes={name: getattr(command, name) for name in NETWORK_SETTINGS},
    )
    predict.run(command.model, command.images, command.output, how)


def main() -> None:
    """Entry point of `slams predict` and `jobs.predict`."""
    command = tyro.cli(PredictCommand, description=__doc__, prog=program_name())
    guarded(lambda: _predict(command))
