"""Stage train_encoder: image shards to the semantic encoder."""

from dataclasses import replace

from slams_ray.config import EncoderConfig
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Result, Workplace, run_stage
from slams_ray.stages.training import resolve_weights, train, training_settings
from slams_ray.tasks.encoder import EncoderTask

STAGE = "train_encoder"


def run(place: Workplace, config: EncoderConfig, seed: int, data: PreparedData) -> Result:
    config = replace(config, backbone=resolve_weights(config.backbone))
    task = EncoderTask(config, data.description.class_names)
    return run_stage(
        place,
        STAGE,
        training_settings(config) | {"seed": seed},
        {"prepare": data.fingerprint},
        lambda attempt: train(place, "encoder", task, config.training, data, seed, attempt),
    )
