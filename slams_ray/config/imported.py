"""Settings of maps and labels that another program made."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImportedConfig:
    """Maps and labels that another program made (docs/import.md)."""

    maps: str | None = None
    """Directory or URI with the maps of the training images, <image_id>.npz each. With --system
    imported they are scored and refined like those of a trained system."""
    labels: str | None = None
    """Directory or URI with label maps of the training images, <image_id>.png each. With --system
    imported_labels the segmentation network learns from them."""
