"""Settings of a prediction of many photographs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from slams_ray.config.checks import check
from slams_ray.data.image import ImageLimits
from slams_ray.model.limits import photograph_limits
from slams_ray.model.tiles import check_tile

CLUSTER_FROM_IMAGES = 1000
"""From this many images on, starting Ray takes less time than it saves. Not measured."""


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """How photographs are predicted, and where masks go.

    Attributes:
        crf: whether DeepLab's CRF of test time refines the masks.
        tile_px: side of the tiles of larger images; None takes images whole.
        max_image_pixels: largest number of pixels of a photograph; larger ones count as bad.
        use_cluster: whether Ray distributes the work; None decides by the number of images.
        output_format: "files" for PNGs and overlays, "parquet" for shards with encoded PNGs.
        on_bad_image: "skip" names and leaves out bad images, "fail" ends at the first.
        images_per_shard: photographs that a process predicts before it records its progress.
        changes: values for any of `source.SETTINGS`; None keeps a setting.
    """

    crf: bool = False
    tile_px: int | None = None
    max_image_pixels: int = ImageLimits.max_pixels
    use_cluster: bool | None = None
    output_format: Literal["files", "parquet"] = "files"
    on_bad_image: Literal["skip", "fail"] = "skip"
    images_per_shard: int = 64
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_tile(self.tile_px)
        photograph_limits(self.max_image_pixels)
        check(self.images_per_shard >= 1, "images_per_shard", self.images_per_shard, ">= 1")
