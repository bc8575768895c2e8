"""Settings of the systems that learn maps beside CAM and SLAMs (docs/method.md, Other systems)."""

from dataclasses import dataclass, field
from typing import Literal

from slams_ray.config.checks import check, check_address
from slams_ray.config.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class RecamConfig:
    """ReCAM, which starts from the CAM classifier (docs/method.md, ReCAM)."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    softmax_weight: float = 1.0
    """Weight of the softmax cross-entropy; published are 1 for VOC and 0.1 for COCO."""

    def __post_init__(self) -> None:
        weight = self.softmax_weight
        check(weight >= 0, "recam.softmax_weight", weight, ">= 0")


@dataclass(frozen=True, kw_only=True)
class OccseConfig:
    """OC-CSE, or GAIN: the image without a map says nothing of its class (docs/method.md, OC-CSE).

    GAIN is judge self, target score, mask sigmoid and weight 1 1.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    initialise_from_cam: bool = False
    """Whether the network starts from the CAM classifier; otherwise it starts from
    classifier.backbone.weights. Switch it on without pretrained weights."""
    judge: Literal["classifier", "self"] = "classifier"
    """Network that classifies erased images: the frozen CAM classifier, or a copy of the trained
    network itself, which gets no gradient."""
    target: Literal["labels", "score"] = "labels"
    """What the judge must say of an erased image: the other labels and not the erased one, or a low
    score of the erased class."""
    mask: Literal["linear", "sigmoid"] = "linear"
    """How a map in [0, 1] erases: the map itself, or sigmoid(mask_slope (map - mask_threshold))."""
    mask_slope: float = 10.0
    """Slope of the sigmoid mask; published are 10 to 100."""
    mask_threshold: float = 0.5
    """Map value that erases half with the sigmoid mask; published are 0.25 to 0.5."""
    weight: tuple[float, float] = (0.3, 1.0)
    """Weight of the judge's loss at the start and at the end of training; linear between them."""

    def __post_init__(self) -> None:
        check(self.mask_slope > 0, "occse.mask_slope", self.mask_slope, "> 0")
        threshold = self.mask_threshold
        check(0 <= threshold <= 1, "occse.mask_threshold", threshold, "in [0, 1]")
        check(min(self.weight) >= 0, "occse.weight", self.weight, ">= 0")


@dataclass(frozen=True, kw_only=True)
class PuzzleConfig:
    """Puzzle-CAM: maps of tiles equal maps of the whole (docs/method.md, Puzzle-CAM)."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    initialise_from_cam: bool = False
    """Whether the network starts from the CAM classifier; otherwise it starts from
    classifier.backbone.weights. Switch it on without pretrained weights."""
    reconstruction: float = 0.3
    """Weight of the difference between both maps, of present classes, in the second half of the
    training. It grows from 0 in the first half."""

    def __post_init__(self) -> None:
        weight = self.reconstruction
        check(weight >= 0, "puzzle.reconstruction", weight, ">= 0")


@dataclass(frozen=True, kw_only=True)
class SeamConfig:
    """SEAM: maps of two scales agree, also after pixel correlation (docs/method.md, SEAM)."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    initialise_from_cam: bool = False
    """Whether the network starts from the CAM classifier; otherwise it starts from
    classifier.backbone.weights. Switch it on without pretrained weights."""
    scale: float = 0.3
    """Size of the second view relative to the crop. Small crops want 0.5."""
    classification: float = 1.0
    """Weight of the classification loss of both views. Raise it if the maps become uniform."""
    min_pooling: float = 1.0
    """Weight of the mean of the smallest quarter of the refined maps, which moves the best
    background threshold."""
    equivariance: float = 1.0
    """Weight of the difference between the maps of both views."""
    correlation: float = 1.0
    """Weight of the difference between the maps of one view and the refined maps of the other."""

    def __post_init__(self) -> None:
        check(0 < self.scale < 1, "seam.scale", self.scale, "in (0, 1)")
        for name in ("classification", "min_pooling", "equivariance", "correlation"):
            value = getattr(self, name)
            check(value >= 0, f"seam.{name}", value, ">= 0")


@dataclass(frozen=True, kw_only=True)
class CpnConfig:
    """CPN: maps of complementary patches add up to the map of the whole (docs/method.md, CPN)."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    initialise_from_cam: bool = False
    """Whether the network starts from the CAM classifier; otherwise it starts from
    classifier.backbone.weights. Switch it on without pretrained weights."""
    regions: Literal["grid", "slic"] = "grid"
    """What is hidden together: cells of a square grid, or SLIC superpixels, which need
    scikit-image."""
    num_regions: int = 300
    """Number of regions of a crop. Half as many are drawn with replacement, which hides 39 %."""
    classification: float = 1.0
    """Weight of the classification loss of the crop and of both patches."""
    min_pooling: float = 1.0
    """Weight of the mean of the smallest quarter of the refined maps, which moves the best
    background threshold."""
    additivity: float = 1.0
    """Weight of the difference between the map of the whole and the sum of those of the patches."""
    refined_additivity: float = 1.0
    """Weight of the same difference of refined maps."""
    correlation: float = 1.0
    """Weight of the difference between the refined map of a patch and what the other patch leaves
    of the map of the whole."""

    def __post_init__(self) -> None:
        check(self.num_regions >= 2, "cpn.num_regions", self.num_regions, ">= 2")
        for name, value in vars(self).items():
            if isinstance(value, float):
                check(value >= 0, f"cpn.{name}", value, ">= 0")


@dataclass(frozen=True, kw_only=True)
class AmnConfig:
    """AMN, which learns confident labels of the CAM maps (docs/method.md, AMN)."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    initialise_from_cam: bool = False
    """Whether the backbone is the CAM classifier's; otherwise it has classifier.backbone.weights.
    Switch it on without pretrained weights."""
    margin: float = 0.1
    """Distance of the confident background and foreground thresholds from the chosen threshold of
    the CAM maps, for the labels that the network learns. The lower one is at least a third of
    the chosen one."""
    pair: tuple[float, float] | None = None
    """Both thresholds as fixed values, such as 0.05 0.3 in IRN; None uses amn.margin."""
    smoothing: float = 0.4
    """Share of a pixel's target that the other classes get together."""

    def __post_init__(self) -> None:
        check(0 <= self.margin <= 1, "amn.margin", self.margin, "in [0, 1]")
        check(0 <= self.smoothing < 1, "amn.smoothing", self.smoothing, "in [0, 1)")
        low, high = self.pair or (0, 1)
        check(0 <= low <= high <= 1, "amn.pair", self.pair, "ascending in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class ClimsConfig:
    """CLIMS: a frozen image-text network scores masked images (docs/method.md, CLIMS)."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    weights: str | None = None
    """File (path or URI) with the state dict of a CLIP network with a vision transformer, in
    OpenAI's keys. It is never downloaded."""
    template: str = "a photo of {}"
    """Text of a class or of a background; {} becomes its words."""
    words: tuple[str, ...] = ()
    """Words of classes that say more than the name, such as person=player."""
    background_words: tuple[str, ...] = (
        "tree",
        "river",
        "sea",
        "lake",
        "water",
        "railway",
        "railroad",
        "track",
        "stone",
        "rocks",
    )
    """What occurs beside classes and must not be in their maps; published for VOC."""
    background_threshold: float = 0.26
    """Similarity above which a background counts; published is 0.26."""
    mask: Literal["sigmoid", "normalised"] = "sigmoid"
    """How logits become the mask, as for activation.mask; published is sigmoid."""
    foreground: float = 10.0
    """Weight of -log of the similarity of the masked image to its class."""
    complement: float = 24.0
    """Weight of -log(1 - similarity) of the rest of the image to the class."""
    background: float = 1.0
    """Weight of -log(1 - similarity) of the masked image to backgrounds above the threshold."""
    area: float = 0.2
    """Weight of the mean of the maps of all classes."""

    def __post_init__(self) -> None:
        check_address(self.weights, "clims.weights")
        check("{}" in self.template, "clims.template", self.template, "a text with {}")
        threshold = self.background_threshold
        check(0 <= threshold <= 1, "clims.background_threshold", threshold, "in [0, 1]")
        for name in ("foreground", "complement", "background", "area"):
            value = getattr(self, name)
            check(value >= 0, f"clims.{name}", value, ">= 0")


@dataclass(frozen=True, kw_only=True)
class ClipEsConfig:
    """CLIP-ES: maps of an image-text network, which is not trained (docs/method.md, CLIP-ES)."""

    weights: str | None = None
    """File (path or URI) with the state dict of a CLIP network with a vision transformer, in
    OpenAI's keys; published is ViT-B/16. It is never downloaded."""
    template: str = "a clean origami {}."
    """Text of a class or of a background; {} becomes its words."""
    words: tuple[str, ...] = ()
    """Words of classes that say more than the name, such as bird=bird avian."""
    background_words: tuple[str, ...] = (
        *("ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river"),
        *("sea", "railway", "railroad", "keyboard", "helmet", "cloud", "house", "mountain"),
        *("ocean", "road", "rock", "street", "valley", "bridge", "sign"),
    )
    """What competes with the classes for an image; published for VOC."""
    box_share: float = 0.4
    """Share of the maximum of a map above which its boxes are; published are 0.4 for VOC and 0.7
    for COCO."""
    attention_blocks: int = 8
    """Number of last blocks whose attention refines the maps."""

    def __post_init__(self) -> None:
        check_address(self.weights, "clip_es.weights")
        check("{}" in self.template, "clip_es.template", self.template, "a text with {}")
        check(0 <= self.box_share < 1, "clip_es.box_share", self.box_share, "in [0, 1)")
        blocks = self.attention_blocks
        check(blocks >= 1, "clip_es.attention_blocks", blocks, ">= 1")


@dataclass(frozen=True, kw_only=True)
class MctformerConfig:
    """MCTformer: a vision transformer with a token for each class (docs/method.md, MCTformer)."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    weights: str | None = None
    """File (path or URI) with the state dict of a vision transformer in timm's keys; published is
    DeiT-S/16. It is never downloaded."""
    map_blocks: int = 3
    """Number of last blocks whose attention of class tokens makes the maps."""
    drop_path: float = 0.1
    """Share of the images for which a branch of the last block is left out in training; earlier
    blocks have less."""

    def __post_init__(self) -> None:
        check_address(self.weights, "mctformer.weights")
        check(self.map_blocks >= 1, "mctformer.map_blocks", self.map_blocks, ">= 1")
        check(0 <= self.drop_path < 1, "mctformer.drop_path", self.drop_path, "in [0, 1)")
