"""Settings of semantic encoder, CAM classifier, activation network and segmentation network."""

from dataclasses import dataclass, field
from typing import Literal

from slams_ray.config.checks import check
from slams_ray.config.labels import InferenceConfig, PredictionCrfConfig
from slams_ray.config.refinement import AffinityConfig
from slams_ray.config.systems import (
    AmnConfig,
    ClimsConfig,
    ClipEsConfig,
    CpnConfig,
    MctformerConfig,
    OccseConfig,
    PuzzleConfig,
    RecamConfig,
    SeamConfig,
)
from slams_ray.config.training import BackboneConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Semantic encoder (docs/method.md, Semantic encoder)."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    embedding_dim: int = 256
    """Length D of an embedding; the head has (C + 1) * D channels. Choose a smaller D for many
    classes: 256 is usual for VOC, 64 to 128 for COCO."""
    masked_fraction: float = 0.5
    """Share of each batch that is softly masked at random with unchanged labels. The encoder then
    knows masked images, through which the activation network learns."""
    dimmed_fraction: float = 0.5
    """Share of each batch whose contrast is scaled by a random factor in [0.2, 1]. Without it the
    maps can collapse to uniform ones (docs/method.md, Collapse)."""

    def __post_init__(self) -> None:
        check(self.embedding_dim >= 1, "encoder.embedding_dim", self.embedding_dim, ">= 1")
        for name in ("masked_fraction", "dimmed_fraction"):
            value = getattr(self, name)
            check(0 <= value <= 1, f"encoder.{name}", value, "in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """CAM classifier, which can also initialise the activation network (docs/method.md, CAM
    baseline)."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Losses of the activation network (docs/method.md, Activation network).

    Each number is the weight of a loss; 0 switches the loss off.
    """

    form: Literal["cosine", "log"] = "cosine"
    """Form of the category losses: 1 - cos and cos, or -log cos and -log(1 - cos) as in CLIMS."""
    foreground: float = 0.0
    """Category-foreground loss, for correctness. The literature uses 1; it needs a second pass
    through the encoder."""
    background: float = 1.0
    """Category-background loss, for completeness."""
    regularization: float = 0.075
    """Activation regularization, for compactness. Lower it if the maps of large objects shrink."""
    regularize: Literal["present", "all"] = "present"
    """Maps that the regularization shrinks: those of present classes (ours) or all (CLIMS)."""
    equivariance: float = 1.0
    """Consistency loss, reading (i): |A(Tx) - T A(x)| for a rescale and flip T. Lower it to 0.1
    with normalised masks, whose maps it flattens."""
    complementation: float = 0.0
    """Consistency loss, reading (ii): (A_k + R_k - 1)^2, where R_k is the highest other map,
    background included (docs/method.md). It is an alternative to reading (i)."""
    classification: float = 1.0
    """Image-level classification loss on the activation network, against drift."""
    pseudo_labels: float = 0.0
    """Cross-entropy with the pseudo labels of activation.pseudo_labels_of, refined as
    refinement.steps says. It pays where those labels are good, which needs pretrained weights."""

    def __post_init__(self) -> None:
        weights = self._weights()
        for name, value in weights.items():
            check(value >= 0, f"activation.losses.{name}", value, ">= 0")
        check(any(weights.values()), "activation.losses", weights, "at least one weight above 0")

    def has_another(self, loss: str) -> bool:
        """Whether a loss other than the named one is used."""
        return any(weight for name, weight in self._weights().items() if name != loss)

    def _weights(self) -> dict[str, float]:
        return {k: v for k, v in vars(self).items() if isinstance(v, int | float)}


@dataclass(frozen=True, kw_only=True)
class ActivationConfig:
    """Activation network (docs/method.md, Activation network)."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    initialise_from_cam: bool = False
    """Whether the network starts from the trained CAM classifier; otherwise it starts from
    classifier.backbone.weights. Switch it on with pretrained weights."""
    # AMN makes labels by stages of its own; the others left out need weights or files of the user.
    pseudo_labels_of: Literal["cam", "recam", "occse", "puzzle", "seam", "cpn"] = "cam"
    """System whose pseudo labels are learnt where losses.pseudo_labels is above 0. Its networks are
    trained, and its maps made and refined, before the activation network."""
    mask: Literal["sigmoid", "normalised"] = "sigmoid"
    """How logits become the mask A: their sigmoid, or their softplus divided by its maximum as in
    inference. Choose normalised to start from a pretrained CAM classifier, whose sigmoid is
    saturated."""
    fill: Literal["grey", "image"] = "grey"
    """What replaces masked pixels: mean grey, or another image without the class. With another
    image, dimming everything cannot lower the loss."""
    binarisation_width: float = 0.0
    """Width of the soft binarisation sigmoid((A - u) / binarisation_width), with a threshold u
    drawn from [0.25, 0.75] for each crop. The losses then see regions; 0 leaves masks unchanged."""
    encoder_input_px: int = 224
    """Side in pixels to which masked crops are resized before they enter the encoder."""
    masked_classes: int | None = None
    """Most classes of a crop that are masked in a step, drawn from its present classes. None masks
    all of them. With one, a step takes less time and memory, for the same loss on average."""
    equivariance_scales: tuple[float, ...] = (0.5, 0.75)
    """Sides of the transformed crop relative to the crop; each step draws one. Smaller ones take
    less time."""
    equivariance_every: int = 1
    """Steps from one use of the equivariance loss to the next. With n, it has n times its weight,
    for the same loss on average, and the other steps take less time."""

    def __post_init__(self) -> None:
        check(
            self.pseudo_labels_of == "cam" or self.losses.pseudo_labels > 0,
            "activation.pseudo_labels_of",
            self.pseudo_labels_of,
            "cam where activation.losses.pseudo_labels is 0, because no labels are learnt then",
        )
        masked = self.masked_classes
        check(masked is None or masked >= 1, "activation.masked_classes", masked, ">= 1")
        scales = self.equivariance_scales
        check(
            bool(scales) and all(0 < scale <= 1 for scale in scales),
            "activation.equivariance_scales",
            scales,
            "numbers in (0, 1]",
        )
        every = self.equivariance_every
        check(every >= 1, "activation.equivariance_every", every, ">= 1")
        check(
            every == 1 or self.losses.has_another("equivariance"),
            "activation.equivariance_every",
            every,
            "1, because no other activation.losses is above 0",
        )
        size = self.encoder_input_px
        check(size >= 16, "activation.encoder_input_px", size, ">= 16")
        check(
            self.binarisation_width >= 0,
            "activation.binarisation_width",
            self.binarisation_width,
            ">= 0",
        )


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Segmentation network (docs/method.md, Segmentation network)."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    head: Literal["deeplabv2", "deeplabv3"] = "deeplabv2"
    """Head of the network: DeepLabV2 (ASPP-L) or torchvision's DeepLabV3."""
    averaging: Literal["batch", "image"] = "image"
    """The loss averages over all labelled pixels of the batch (DeepLabV2), or over those of each
    image first."""
    input_scales: tuple[float, ...] = (1.0,)
    """Scales of a crop in training. With several, the loss is the sum over the logits of each scale
    and over their maximum; published DeepLabV2 programs use 0.5 0.75 1."""
    learn_masks: bool = False
    """Whether the network learns the masks of training photographs in place of their pseudo labels.
    Only masks that data.score_list leaves count; 255 teaches nothing."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    crf: PredictionCrfConfig = field(default_factory=PredictionCrfConfig)

    def __post_init__(self) -> None:
        scales = self.input_scales
        check(
            bool(scales) and min(scales) > 0,
            "segmentation.input_scales",
            scales,
            "positive numbers",
        )


TrainedConfig = (
    EncoderConfig
    | ClassifierConfig
    | ActivationConfig
    | RecamConfig
    | OccseConfig
    | PuzzleConfig
    | SeamConfig
    | CpnConfig
    | AmnConfig
    | ClimsConfig
    | MctformerConfig
    | AffinityConfig
    | SegmentationConfig
)
"""Settings of one trained network; each has the field `training`."""

FixedConfig = ClipEsConfig
"""Settings of one network that is not trained."""
