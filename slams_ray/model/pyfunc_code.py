"""Code of the segmentation network as an MLflow model, which MLflow runs when it loads one.

The model takes a list of encoded images and returns a list of encoded label maps. MLflow derives
its signature from the annotations of `predict`.
"""

from typing import Any

import mlflow

from slams_ray.model.model import load_model

CHECKPOINT = "checkpoint"
"""Artifact with the checkpoint."""


class SegmentationModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Segments images as `jobs.predict` does."""

    def load_context(self, context: Any) -> None:
        """Loads the network, with the settings beside its checkpoint."""
        self.model = load_model(context.artifacts[CHECKPOINT])

    def predict(self, model_input: list[bytes]) -> list[bytes]:
        """Segments JPEG, PNG, WebP or BMP images.

        Returns:
            palette PNG of each image, whose pixels are class indices.
        """
        return [found.to_png() for found in self.model.predict(list(model_input))]


mlflow.models.set_model(SegmentationModel())
