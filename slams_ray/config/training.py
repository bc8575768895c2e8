"""What every network has: a backbone and its optimisation."""

from dataclasses import dataclass
from typing import Literal

from slams_ray.config.checks import check, check_address


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
    frozen_blocks: int = 0
    """Leading blocks whose weights stay as they are loaded, so that no gradient is computed for
    them: entries of MobileNetV2's features (7 of 19: a training step takes 0.6 of the time); of a
    ResNet conv1, bn1, relu, maxpool (4) and one more for each stage."""

    def __post_init__(self) -> None:
        check_address(self.weights, "backbone.weights")
        check(self.frozen_blocks >= 0, "backbone.frozen_blocks", self.frozen_blocks, ">= 0")


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
    """Steps between metric points, at which a loss that is not finite is noticed."""

    def __post_init__(self) -> None:
        check(self.epochs > 0, "training.epochs", self.epochs, "> 0")
        check(self.batch_size >= 1, "training.batch_size", self.batch_size, ">= 1")
        check(self.crop_px >= 32, "training.crop_px", self.crop_px, ">= 32")
        low, high = self.long_side_px
        check(0 < low <= high, "training.long_side_px", self.long_side_px, "two ascending lengths")
        check(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "> 0")
        for name in ("warmup_steps", "weight_decay", "momentum"):
            check(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), ">= 0")
        norm = self.max_gradient_norm
        check(norm > 0, "training.max_gradient_norm", norm, "> 0")
        check(
            self.checkpoint_every_steps >= 1,
            "training.checkpoint_every_steps",
            self.checkpoint_every_steps,
            ">= 1",
        )
        check(self.log_every_steps >= 1, "training.log_every_steps", self.log_every_steps, ">= 1")
