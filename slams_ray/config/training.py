"""Settings that every network has: backbone and optimisation."""

from dataclasses import dataclass
from typing import Literal

from slams_ray.config.checks import check, check_address


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Feature extractor of a network."""

    name: Literal[
        "tiny_resnet", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101"
    ] = "resnet50"
    """Architecture. All but tiny_resnet are torchvision's."""
    output_stride: Literal[4, 8, 16, 32] = 16
    """Input pixels per feature cell; the last stages lose their stride to reach it. Only
    tiny_resnet supports 4."""
    dilate: bool = True
    """Whether the stages that lose their stride are dilated to keep their field of view. IRN's
    networks only lose the stride. tiny_resnet is never dilated."""
    weights: str = "none"
    """Initial weights: none (random), a file with a torchvision state dict, or a torchvision enum
    such as ResNet50_Weights.IMAGENET1K_V1, which is downloaded on first use. Published ResNet
    results use V1: maps from IMAGENET1K_V2 are known to be poorer, though it classifies better."""
    freeze_batch_norm: bool = True
    """Keeps BatchNorm statistics fixed. Switch it on with pretrained weights and off with random
    ones."""
    freeze_batch_norm_affine: bool = False
    """Keeps scale and shift of BatchNorm fixed as well, as published DeepLabV2 programs do."""
    frozen_blocks: int = 0
    """Number of leading blocks that are not trained, which saves their backward pass. MobileNetV2
    has 19 blocks; a ResNet has 4 (conv1, bn1, relu, maxpool) and one for each stage."""

    def __post_init__(self) -> None:
        check_address(self.weights, "backbone.weights")
        check(self.frozen_blocks >= 0, "backbone.frozen_blocks", self.frozen_blocks, ">= 0")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Training of one network."""

    epochs: float = 10
    """Number of passes over the training split; fractions are allowed."""
    batch_size: int = 16
    """Images per optimisation step, summed over all workers."""
    accumulation_steps: int = 1
    """Parts into which a worker splits its images of a batch, to need less memory. Gradients add
    up, so the optimisation step stays the same; BatchNorm statistics must be frozen."""
    crop_px: int = 320
    """Side of the square training crop; smaller images are padded, and losses ignore the padding.
    """
    long_side_px: tuple[int, int] = (320, 640)
    """Range from which the length of the longer image side is drawn before cropping."""
    colour_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Largest random change of brightness, contrast, saturation and hue of a crop, as in
    torchvision's ColorJitter. SemFormer uses 0.3 0.3 0.3 0.1; 0 0 0 0 changes nothing."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimiser: SGD with momentum, or AdamW."""
    learning_rate: float = 0.01
    """Peak learning rate of the backbone."""
    head_multiplier: float = 10.0
    """Learning rate of the head relative to the backbone."""
    head_bias_multiplier: float | None = None
    """Learning rate of the head's biases relative to the backbone, without weight decay; published
    DeepLabV2 programs use 20. None treats them as the head's weights."""
    momentum: float = 0.9
    """Momentum of SGD; AdamW ignores it."""
    weight_decay: float = 5e-4
    """Weight decay: L2 for sgd, decoupled for adamw."""
    schedule: Literal["poly", "cosine"] = "poly"
    """Decay of the learning rate to 0: (1 - step / steps)^0.9, or half a cosine."""
    warmup_steps: int = 0
    """Steps of linear increase to the peak learning rate."""
    max_gradient_norm: float | None = 10.0
    """Largest global norm of the gradients; larger ones are scaled down to it. None scales none, as
    in published programs."""
    amp: bool = True
    """Uses bfloat16 autocast on devices that multiply it natively (GPUs since Ampere, CPUs with AMX
    or AVX512-BF16); others compute in float32. False makes machines of all kinds train alike."""
    checkpoint_every_steps: int = 500
    """Steps between checkpoints; a killed training continues from the last one."""
    log_every_steps: int = 20
    """Steps between logged metrics. A loss that is not finite ends the training at the next of
    these steps."""

    def __post_init__(self) -> None:
        check(self.epochs > 0, "training.epochs", self.epochs, "> 0")
        check(self.batch_size >= 1, "training.batch_size", self.batch_size, ">= 1")
        parts, bias = self.accumulation_steps, self.head_bias_multiplier
        check(parts >= 1, "training.accumulation_steps", parts, ">= 1")
        check(bias is None or bias >= 0, "training.head_bias_multiplier", bias, ">= 0, or None")
        check(self.crop_px >= 32, "training.crop_px", self.crop_px, ">= 32")
        low, high = self.long_side_px
        check(0 < low <= high, "training.long_side_px", self.long_side_px, "two ascending lengths")
        *changes, hue = self.colour_jitter
        check(
            min(changes) >= 0 and 0 <= hue <= 0.5,
            "training.colour_jitter",
            self.colour_jitter,
            "four numbers >= 0, the last at most 0.5",
        )
        check(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "> 0")
        for name in ("warmup_steps", "weight_decay", "momentum"):
            check(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), ">= 0")
        norm = self.max_gradient_norm
        check(norm is None or norm > 0, "training.max_gradient_norm", norm, "> 0, or None")
        check(
            self.checkpoint_every_steps >= 1,
            "training.checkpoint_every_steps",
            self.checkpoint_every_steps,
            ">= 1",
        )
        check(self.log_every_steps >= 1, "training.log_every_steps", self.log_every_steps, ">= 1")
