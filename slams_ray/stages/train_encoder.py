"""Stage train_encoder: image shards to the semantic encoder."""

from dataclasses import replace

from slams_ray.config import EncoderConfig
from slams_ray.data.source import TRAIN, VAL
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Outcome, Result, Workplace, run_stage
from slams_ray.stages.training import resolve_weights, train, training_settings
from slams_ray.systems.collapse import dead_category_warnings
from slams_ray.systems.slams.encoder import EncoderTask, dead_categories

STAGE = "train_encoder"


def run(place: Workplace, config: EncoderConfig, seed: int, data: PreparedData) -> Result:
    config = replace(config, backbone=resolve_weights(config.backbone))
    task = EncoderTask(config, data.description.class_names)

    def work(attempt: Attempt) -> Outcome:
        outcome = train(place, "encoder", task, config.training, data, seed, attempt)
        return replace(outcome, warnings=dead_category_warnings(dead_categories(outcome.metrics)))

    return run_stage(
        place,
        STAGE,
        training_settings(config) | {"seed": seed},
        {"prepare": data.images_digest(TRAIN, VAL)},
        work,
    )
