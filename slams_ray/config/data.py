"""Settings of the data set: images, labels and masks, and how they are stored."""

from dataclasses import dataclass
from typing import Literal

from slams_ray.config.checks import check, check_address


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Settings of the data set."""

    format: Literal["synthetic", "coco", "voc", "folder"]
    """Layout on disk. synthetic generates the built-in set under the workspace and reads it as
    coco.
    """
    root: str = ""
    """Directory of the data set: a local path or a URI such as s3://bucket/coco. synthetic ignores
    it.
    """
    train_split: str = "train"
    """Split whose image labels train all networks (train2014 for coco, trainaug for voc)."""
    val_split: str | None = "val"
    """Split that scores the segmentation network; None scores it on the training split and the
    report says so."""
    train_list: str | None = None
    """Text file of image ids that replaces the official list of the training split."""
    val_list: str | None = None
    """Text file of image ids that replaces the official list of the val split."""
    score_list: str | None = None
    """Training images whose masks are used, to choose the threshold and to score seeds and pseudo
    labels: a text file, or for voc the name of an official list (train has 1,464 of the 10,582
    images). None takes all images that have a mask."""
    classes: tuple[str, ...] = ()
    """Names of the classes to use; pixels of other classes become 255. Empty means all classes."""
    crowd: Literal["background", "ignore"] = "background"
    """coco: whether crowd regions are background, as in the ground truth of ReCAM and CLIMS, or
    ignored (255)."""
    unlabelled: Literal["drop", "keep"] = "drop"
    """Whether images without any label are left out and counted, or kept as pure background."""
    voc_mask_dir: str = "SegmentationClass"
    """voc: directory of the index PNGs; trainaug needs SegmentationClassAug."""
    voc_labels_from: Literal["xml", "masks"] = "xml"
    """voc: source of the image labels: the objects in Annotations/*.xml, difficult ones too, as
    published results have them; or the classes in the masks, which need no annotations."""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """Whether a missing, truncated or contradictory image ends the stage, or is left out and
    listed."""
    max_side_px: int | None = None
    """Longest side of stored images and masks; larger ones are shrunk. Set it for photographs of
    many megapixels, which inference and the CRF otherwise process at full size."""
    max_image_bytes: int = 64 * 2**20
    """Largest file size of an image or mask; larger files count as bad images."""
    max_image_pixels: int = 64_000_000
    """Largest number of pixels of an image or mask; larger ones count as bad images. The maximum is
    64 million, because later stages decode no more."""
    images_per_shard: int = 64
    """Images per Parquet shard, the unit of progress, resume and distribution. A shard of 64
    photographs has about 10 MB."""
    synthetic_train_images: int = 640
    """synthetic: number of images in the training split."""
    synthetic_val_images: int = 96
    """synthetic: number of images in the val split."""
    synthetic_seed: int = 0
    """synthetic: random seed of the generator."""

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
