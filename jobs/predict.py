"""Segment photographs with a trained network: palette PNG masks and overlays.

python -m jobs.predict --model runs/demo --images photos --output masks
"""

from dataclasses import dataclass, field

import tyro

from jobs.command import guarded
from slams_ray.config import InferenceConfig


@dataclass(frozen=True, kw_only=True)
class PredictCommand:
    """Masks for every image of a directory."""

    model: str
    """model.pt of a train_segmentation stage, or the workspace of a finished pipeline."""
    images: str
    """Directory of .jpg, .png, .webp or .bmp files."""
    output: str
    """Directory for <name>.png (palette mask) and <name>_overlay.jpg."""
    max_side_px: int = 1024
    """Larger photographs are segmented at this length of their longer side; masks are full size."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """Scales and mirroring."""


def _predict(command: PredictCommand) -> None:
    from slams_ray.stages import predict

    predict.run(
        command.model, command.images, command.output, command.inference, command.max_side_px
    )


if __name__ == "__main__":
    parsed = tyro.cli(PredictCommand, description=__doc__)
    guarded(lambda: _predict(parsed))
