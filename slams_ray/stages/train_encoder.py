"""Stage train_encoder: image shards to the semantic encoder."""

from slams_ray.artifacts import to_plain
from slams_ray.config import EncoderConfig
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Result, Workplace, run_stage
from slams_ray.stages.training import train
from slams_ray.tasks.encoder import EncoderTask

STAGE = "train_encoder"


def run(place: Workplace, config: EncoderConfig, seed: int, data: PreparedData) -> Result:
    task = EncoderTask(config, data.description.class_names)
    return run_stage(
        place,
        STAGE,
        to_plain(config) | {"seed": seed},
        {"prepare": data.fingerprint},
        lambda attempt: train(place, "encoder", task, config.training, data, seed, attempt),
    )
