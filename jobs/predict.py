"""Segment photographs with a trained network: palette PNG masks and overlays.

python -m jobs.predict --model runs/demo --images photos --output masks
"""

from dataclasses import asdict, dataclass
from typing import Literal

import tyro

from slams_ray.cli.command import guarded


@dataclass(frozen=True, kw_only=True)
class PredictCommand:
    """Makes a mask for every image of a directory.

    The network infers as it was scored: settings that are not given come from the checkpoint or the
    workspace.
    """

    model: str
    """model.pt of a train_segmentation stage, or the workspace of a finished pipeline."""
    images: str
    """Directory with .jpg, .png, .webp or .bmp files."""
    output: str
    """Directory for <name>.png (palette mask) and <name>_overlay.jpg."""
    scales: tuple[float, ...] | None = None
    """Image scales whose scores are averaged."""
    flip: bool | None = None
    """Whether the mirrored image is included as well."""
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    """Number format of the network; auto is bfloat16 on devices that multiply it natively."""
    max_side_px: int | None = None
    """Longest side at which photographs are segmented; larger ones are shrunk. Masks have full
    size."""
    crf: bool = False
    """Refines each mask by the CRF that DeepLab uses at test time, which takes seconds an image."""


def _predict(command: PredictCommand) -> None:
    from slams_ray.stages import predict

    predict.run(**asdict(command))


if __name__ == "__main__":
    parsed = tyro.cli(PredictCommand, description=__doc__)
    guarded(lambda: _predict(parsed))
