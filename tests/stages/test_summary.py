from dataclasses import replace

from slams_ray.config import PipelineConfig, PredictionCrfConfig
from slams_ray.stages.summary import headlines


def test_the_score_after_the_crf_is_beside_the_one_without_where_a_run_asks_for_it(
    tiny_config: PipelineConfig,
) -> None:
    crf = replace(tiny_config.segmentation, crf=PredictionCrfConfig(iterations=10))
    asked = headlines(replace(tiny_config, segmentation=crf))
    assert asked[-2:] == ["segmentation_miou", "segmentation_crf_miou"]
    assert headlines(tiny_config) == asked[:-1]
