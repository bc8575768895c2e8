"""Every setting of the pipeline: frozen dataclasses, one per concern, checked where they are built.

Field docstrings are the command-line help. Lists of values that recipes choose stand in
`jobs/recipes`.
"""

from dataclasses import dataclass, field
from typing import Literal

from slams_ray.errors import ConfigError


def _check(holds: bool, name: str, got: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {got!r}, expected {expected}")


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
    images_per_shard: int = 64
    """Rows per Parquet shard, the unit of progress, resume and distribution; 64 photographs are
    about 10 MB. More shards allow more training workers."""
    synthetic_train_images: int = 640
    """synthetic: images in the training split."""
    synthetic_val_images: int = 96
    """synthetic: images in the val split."""
    synthetic_seed: int = 0
    """synthetic: seed of the generator."""

    def __post_init__(self) -> None:
        _check(self.images_per_shard >= 1, "data.images_per_shard", self.images_per_shard, ">= 1")
        side = self.max_side_px
        _check(side is None or side >= 32, "data.max_side_px", side, ">= 32")
        if self.format != "synthetic":
            _check(bool(self.root), "data.root", self.root, "the directory of the data set")
        else:
            smallest = min(self.synthetic_train_images, self.synthetic_val_images)
            _check(smallest >= 8, "data.synthetic_*_images", smallest, ">= 8")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A feature extractor."""

    name: Literal[
        "tiny_resnet", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101"
    ] = "resnet50"
    """Architecture, by torchvision except tiny_resnet."""
    output_stride: Literal[4, 8, 16, 32] = 16
    """Input pixels per feature cell; the last stages are dilated to reach it. 4 is for tiny_resnet
    only.
    """
    weights: str = "none"
    """none, a file with a torchvision state dict, or a torchvision enum such as
    ResNet50_Weights.IMAGENET1K_V2 (downloads on first use)."""
    freeze_batch_norm: bool = True
    """Keep BatchNorm statistics fixed: right with pretrained weights, wrong with random ones."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimisation of one network."""

    epochs: float = 10
    """Passes over the training split; fractions are allowed."""
    batch_size: int = 16
    """Images per optimisation step, over all workers together."""
    crop_px: int = 320
    """Side of the square training crop; smaller images are padded, and padding earns nothing."""
    long_side_px: tuple[int, int] = (320, 640)
    """The longer image side is resized to a random length in this range before cropping."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    learning_rate: float = 0.01
    """Peak learning rate of the backbone."""
    head_multiplier: float = 10.0
    """Learning rate of the head relative to the backbone."""
    momentum: float = 0.9
    """SGD only."""
    weight_decay: float = 5e-4
    """L2 (sgd) or decoupled (adamw)."""
    schedule: Literal["poly", "cosine"] = "poly"
    """Decay of the learning rate to 0: (1 - step / steps)^0.9, or half a cosine."""
    warmup_steps: int = 0
    """Steps of linear increase to the peak learning rate."""
    max_gradient_norm: float = 10.0
    """Gradients are scaled down to this global norm."""
    amp: bool = True
    """bfloat16 autocast on GPUs; CPUs compute in float32."""
    checkpoint_every_steps: int = 500
    """A killed run continues from the last of these."""
    log_every_steps: int = 20
    """Steps between metric points."""

    def __post_init__(self) -> None:
        _check(self.epochs > 0, "training.epochs", self.epochs, "> 0")
        _check(self.batch_size >= 1, "training.batch_size", self.batch_size, ">= 1")
        _check(self.crop_px >= 32, "training.crop_px", self.crop_px, ">= 32")
        low, high = self.long_side_px
        _check(0 < low <= high, "training.long_side_px", self.long_side_px, "two ascending lengths")
        _check(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "> 0")
        for name in ("warmup_steps", "weight_decay", "momentum"):
            _check(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), ">= 0")
        norm = self.max_gradient_norm
        _check(norm > 0, "training.max_gradient_norm", norm, "> 0")
        _check(
            self.checkpoint_every_steps >= 1,
            "training.checkpoint_every_steps",
            self.checkpoint_every_steps,
            ">= 1",
        )
        _check(self.log_every_steps >= 1, "training.log_every_steps", self.log_every_steps, ">= 1")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Semantic encoder (method section 2)."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    embedding_dim: int = 256
    """D. The head has (C + 1) D channels: 256 for VOC, 64 to 128 for COCO."""
    masked_fraction: float = 0.5
    """Share of each batch that is softly masked at random with unchanged labels, so that embeddings
    of masked images, which the activation network is trained through, are in distribution."""
    dimmed_fraction: float = 0.5
    """Share of each batch whose contrast is scaled by a random factor in [0.2, 1]. Without it a
    uniform map that merely brightens lowers the losses and the maps collapse to it (method section
    3)."""

    def __post_init__(self) -> None:
        _check(self.embedding_dim >= 1, "encoder.embedding_dim", self.embedding_dim, ">= 1")
        for name in ("masked_fraction", "dimmed_fraction"):
            value = getattr(self, name)
            _check(0 <= value <= 1, f"encoder.{name}", value, "in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """CAM classifier: baseline, and initialisation of the activation network (method section 4)."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Losses of the activation network (method section 3); a weight of 0 switches a term off."""

    form: Literal["cosine", "log"] = "cosine"
    """1 - cos and cos, or -log cos and -log(1 - cos) as in CLIMS."""
    foreground: float = 1.0
    """Category-foreground loss: correctness."""
    background: float = 1.0
    """Category-background loss: completeness."""
    regularization: float = 0.075
    """Activation regularization: compactness."""
    regularize: Literal["present", "all"] = "present"
    """Which maps it shrinks: those of present classes (SemFormer) or all (CLIMS)."""
    equivariance: float = 1.0
    """Consistency, reading (i): |A(Tx) - T A(x)| for a rescale and flip T."""
    complementation: float = 0.0
    """Consistency, reading (ii): (A_k + max_j A_j - 1)^2."""
    classification: float = 1.0
    """Image-level loss on the activation network against drift."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float):
                _check(value >= 0, f"activation.losses.{name}", value, ">= 0")


@dataclass(frozen=True, kw_only=True)
class ActivationConfig:
    """Activation network (method section 3)."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    initialise_from_cam: bool = True
    """Start from the trained CAM classifier, or from its backbone weights."""
    encoder_input_px: int = 224
    """Masked crops are resized to this side before they enter the encoder."""

    def __post_init__(self) -> None:
        size = self.encoder_input_px
        _check(size >= 16, "activation.encoder_input_px", size, ">= 16")


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """CAM and SLAMs inference (method section 5)."""

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    """Image scales whose maps are summed."""
    flip: bool = True
    """Also the mirrored image."""

    def __post_init__(self) -> None:
        _check(
            bool(self.scales) and min(self.scales) > 0,
            "inference.scales",
            self.scales,
            "positive numbers",
        )


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig:
    """Search of the background threshold on the training split."""

    num_thresholds: int = 256
    """Thresholds scored, evenly from 0 to 1. Their number costs nothing."""
    fallback: float = 0.2
    """Threshold used where no training image has a mask (method section 6: .15 to .25 is usual)."""
    fixed: float | None = None
    """Use this threshold whatever the search finds."""

    def __post_init__(self) -> None:
        _check(self.num_thresholds >= 2, "threshold.num_thresholds", self.num_thresholds, ">= 2")
        for name in ("fallback", "fixed"):
            value = getattr(self, name)
            _check(
                value is None or 0 <= value <= 1, f"threshold.{name}", value, "a number in [0, 1]"
            )


@dataclass(frozen=True, kw_only=True)
class CrfConfig:
    """Dense CRF and pseudo labels (method section 6)."""

    form: Literal["label", "constant", "power"] = "label"
    """Unary from hard seeds (IRN), from scores beside a constant background, or beside (1 - max
    A)^alpha.
    """
    iterations: int = 10
    """Mean-field iterations; 0 leaves seeds unrefined."""
    gt_prob: float = 0.7
    """label form: confidence of the seed."""
    alpha: float = 10.0
    """power form: exponent for the refined map."""
    alpha_pair: tuple[float, float] = (6.0, 24.0)
    """power form: exponents that bound the ignore band, low (much background) to high (little)."""
    gaussian_sxy_px: float = 3.0
    """Standard deviation of the Gaussian kernel."""
    gaussian_compat: float = 3.0
    """Weight of the Gaussian kernel."""
    bilateral_sxy_px: float = 50.0
    """Spatial standard deviation of the bilateral kernel; 80 is usual with the softmax forms."""
    bilateral_srgb: float = 5.0
    """Colour standard deviation of the bilateral kernel in 8-bit steps; 13 with softmax forms."""
    bilateral_compat: float = 10.0
    """Weight of the bilateral kernel."""
    foreground_margin: float = 0.1
    """Pixels are confident objects this far above the background threshold..."""
    background_margin: float = 0.1
    """...and confident background this far below it; between, the pseudo label is 255."""
    export: Literal["none", "masks", "voc"] = "masks"
    """Also write palette PNGs and lists in VOC layout: not at all, without, or with the images."""

    def __post_init__(self) -> None:
        _check(self.iterations >= 0, "crf.iterations", self.iterations, ">= 0")
        _check(0.5 < self.gt_prob < 1, "crf.gt_prob", self.gt_prob, "a number in (0.5, 1)")
        low, high = self.alpha_pair
        _check(
            0 < low <= self.alpha <= high,
            "crf.alpha_pair",
            self.alpha_pair,
            "two exponents around crf.alpha",
        )
        for name in ("gaussian_sxy_px", "bilateral_sxy_px", "bilateral_srgb"):
            _check(getattr(self, name) > 0, f"crf.{name}", getattr(self, name), "> 0")
        for name in ("foreground_margin", "background_margin"):
            _check(0 <= getattr(self, name) <= 1, f"crf.{name}", getattr(self, name), "in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Segmentation network (method section 7)."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    head: Literal["deeplabv2", "deeplabv3"] = "deeplabv2"
    """DeepLabV2 (ASPP-L), or torchvision's DeepLabV3 head."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How many processes and devices; changes time, never results, and so no fingerprint."""

    train_workers: int = 1
    """Ray Train workers, one GPU each where GPUs are used. Must divide the batch size."""
    feed_tasks: int = 2
    """Processes that decode and augment for each training worker; 8 and more for a fast GPU."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """auto takes GPUs where the cluster has them."""
    gpu_actors: int | None = None
    """Inference actors on GPUs; None takes all GPUs."""
    max_failures: int = 3
    """Times a training restarts from its last checkpoint after a lost worker."""

    def __post_init__(self) -> None:
        for name in ("train_workers", "feed_tasks", "gpu_actors"):
            value = getattr(self, name)
            _check(value is None or value >= 1, f"compute.{name}", value, ">= 1")
        _check(self.max_failures >= 0, "compute.max_failures", self.max_failures, ">= 0")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """MLflow; changes no result and so no fingerprint."""

    experiment: str = "slams_ray"
    """Experiment name. The server is MLFLOW_TRACKING_URI; without it, SQLite in the workspace."""
    num_examples: int = 6
    """Images in the montage."""

    def __post_init__(self) -> None:
        _check(self.num_examples >= 1, "tracking.num_examples", self.num_examples, ">= 1")


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """All eight stages."""

    data: DataConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    activation: ActivationConfig = field(default_factory=ActivationConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)
    crf: CrfConfig = field(default_factory=CrfConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seed: int = 0
    """Seeds initial weights, augmentation and order of every training."""

    def __post_init__(self) -> None:
        for name in ("encoder", "classifier", "activation", "segmentation"):
            batch_size = getattr(self, name).training.batch_size
            _check(
                batch_size % self.compute.train_workers == 0,
                f"{name}.training.batch_size",
                batch_size,
                f"a multiple of compute.train_workers ({self.compute.train_workers})",
            )
