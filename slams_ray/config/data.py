"""Which images, labels and masks, and how they are stored."""

from dataclasses import dataclass
from typing import Literal

from slams_ray.config.checks import check, check_address


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, labels and masks."""

    format: Literal["synthetic", "coco", "voc", "folder"]
    """Layout on disk. synthetic generates the built-in set under the workspace, then reads it as
    coco.
    """
    root: str = ""
    """Directory of the data set, a local path or a URI such as s3://bucket/coco. Unused for
    synthetic.
    """
    train_split: str = "train"
    """Split whose image labels train everything (coco train2014, voc trainaug)."""
    val_split: str | None = "val"
    """Split the final network is scored on; None scores it on the training split and says so."""
    train_list: str | None = None
    """Text file of image ids instead of the official list of the training split."""
    val_list: str | None = None
    """Text file of image ids instead of the official list of the val split."""
    score_list: str | None = None
    """Training images whose masks may choose the threshold and score seeds and pseudo labels: a
    text file, or for voc the name of an official list (train, 1,464 of the 10,582). None takes all
    that have a mask."""
    classes: tuple[str, ...] = ()
    """Subset of class names. Pixels of other classes become 255. Empty means all."""
    crowd: Literal["background", "ignore"] = "background"
    """coco: crowd regions are background (ground truth of ReCAM and CLIMS) or ignored."""
    unlabelled: Literal["drop", "keep"] = "drop"
    """Images without any label: left out and counted, or kept as pure background."""
    voc_mask_dir: str = "SegmentationClass"
    """voc: directory of index PNGs, SegmentationClassAug for trainaug."""
    voc_labels_from: Literal["masks", "xml"] = "masks"
    """voc: image labels from the masks, or from Annotations/*.xml where images have no mask."""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """A missing, truncated or contradictory image ends the stage, or is left out and listed."""
    max_side_px: int | None = None
    """Images with a longer side than this are stored smaller, masks alike: for photographs of many
    megapixels, which inference and CRF would otherwise process at full size."""
    max_image_bytes: int = 64 * 2**20
    """Larger files of images and masks are not read: they are bad images."""
    max_image_pixels: int = 64_000_000
    """Images and masks that announce more are not decoded: they are bad images. 64 million is the
    highest bound, because later stages decode no more."""
    images_per_shard: int = 64
    """Rows per Parquet shard, the unit of progress, resume and distribution; 64 photographs are
    about 10 MB."""
    synthetic_train_images: int = 640
    """synthetic: images in the training split."""
    synthetic_val_images: int = 96
    """synthetic: images in the val split."""
    synthetic_seed: int = 0
    """synthetic: seed of the generator."""

    def __post_init__(self) -> None:
        for name in ("root", "train_list", "val_list", "score_list"):
            check_address(getattr(self, name), f"data.{name}")
        check(self.images_per_shard >= 1, "data.images_per_shard", self.images_per_shard, ">= 1")
        side = self.max_side_px
        check(side is None or side >= 32, "data.max_side_px", side, ">= 32")
        check(self.max_image_bytes >= 1, "data.max_image_bytes", self.max_image_bytes, ">= 1")
        pixels = self.max_image_pixels
        check(1 <= pixels <= 64_000_000, "data.max_image_pixels", pixels, "in 1..64000000")
        if self.format != "synthetic":
            check(bool(self.root), "data.root", self.root, "the directory of the data set")
        else:
            smallest = min(self.synthetic_train_images, self.synthetic_val_images)
            check(smallest >= 8, "data.synthetic_*_images", smallest, ">= 8")
