"""The precision that inference computes in, decided once for all machines of a stage."""

from dataclasses import replace
from typing import TypeVar

import torch

from slams_ray.config import ComputeConfig, InferenceConfig
from slams_ray.inference.precision import inference_dtype
from slams_ray.runtime.cluster import ask_each_node

Config = TypeVar("Config", bound=InferenceConfig)


def resolved(config: Config, compute: ComputeConfig) -> Config:
    """The settings with `precision: auto` replaced by what it means on these machines.

    It is bfloat16 only where every machine multiplies bfloat16 itself, so that the shards of one
    stage never mix precisions. The resolved value is part of the stage's fingerprint.
    """
    if config.precision != "auto":
        return config
    found = ask_each_node(_auto, compute.device)
    if all(name == "bfloat16" for name in found):
        return replace(config, precision="bfloat16")
    return replace(config, precision="float32")


def _auto(device: str) -> str:
    """Name of what auto means on a torch device of this machine."""
    return str(inference_dtype("auto", torch.device(device))).removeprefix("torch.")
