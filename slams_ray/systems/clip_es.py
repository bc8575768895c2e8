"""CLIP-ES: maps of an image-text network, without training (Lin et al., CVPR 2023).

The network and its formulas are `ClipMapNetwork`. The stage `make_clip_es` writes it as a
checkpoint, so inference, thresholds and refinement are those of every other system.
"""

from collections.abc import Sequence
from dataclasses import asdict

from slams_ray.config import ClipEsConfig, PipelineConfig
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.clip_map_network import ClipMapNetwork
from slams_ray.networks.extras import require_extra
from slams_ray.networks.image_text import load_clip, read_clip
from slams_ray.systems.prompts import class_texts
from slams_ray.systems.system import FixedNetwork, NetworkStage, System

NAME = "clip_es"
STAGE = f"make_{NAME}"


def make_checkpoint(config: ClipEsConfig, class_names: Sequence[str]) -> bytes:
    """Returns the checkpoint of the network.

    Raises:
        ConfigError: the weights file is missing or of another architecture, or words name no class.
    """
    assert config.weights is not None
    texts = class_texts(class_names, config, NAME)
    clip = load_clip(config.weights, NAME)
    sizes, _ = read_clip(config.weights, f"{NAME}.weights")
    tower = ("embedding_dim", "width", "layers", "patch_px", "image_px")
    architecture = {key: value for key, value in asdict(sizes).items() if key in tower} | {
        "texts": texts,
        "num_classes": len(class_names) - 1,
        "box_share": config.box_share,
        "attention_blocks": config.attention_blocks,
    }
    network = ClipMapNetwork(**architecture)
    network.visual.load_state_dict(clip.clip.visual.state_dict())
    network.text_table.copy_(clip.text_embeddings(texts))
    network.logit_scale.copy_(clip.clip.logit_scale.exp())
    return dump_network(network, architecture, class_names)


def stages(config: PipelineConfig) -> list[NetworkStage]:
    """Returns the stage that writes the network."""
    own = config.clip_es
    return [FixedNetwork(stage=STAGE, config=own, make=lambda names: make_checkpoint(own, names))]


def check(config: PipelineConfig) -> None:
    """Raises ConfigError if open_clip or the weights are missing, or the weights do not fit."""
    require_extra("open_clip", "text", NAME)
    assert config.clip_es.weights is not None
    read_clip(config.clip_es.weights, f"{NAME}.weights")


SYSTEM = System(name=NAME, title="CLIP-ES", map_stage=STAGE, trainings=stages, check=check)
