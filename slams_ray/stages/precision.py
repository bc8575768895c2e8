"""Chooses the precision of inference, once for all machines of a stage."""

from dataclasses import replace
from typing import TypeVar

import torch

from slams_ray.config import ComputeConfig, InferenceConfig
from slams_ray.inference.precision import inference_dtype
from slams_ray.runtime.cluster import ask_each_node

Config = TypeVar("Config", bound=InferenceConfig)


def resolved(config: Config, compute: ComputeConfig) -> Config:
    """Returns the settings with precision "auto" replaced by bfloat16 or float32.

    It is bfloat16 only if every machine has native bfloat16, so that the shards of a stage never
    mix precisions. The resolved value is part of the stage's fingerprint.
    """
    if config.precision != "auto":
        return config
    found = ask_each_node(_auto, compute.device)
    if all(name == "bfloat16" for name in found):
        return replace(config, precision="bfloat16")
    return replace(config, precision="float32")


def _auto(device: str) -> str:
    """Returns the name of the dtype that "auto" means on a torch device of this machine."""
    return str(inference_dtype("auto", torch.device(device))).removeprefix("torch.")
