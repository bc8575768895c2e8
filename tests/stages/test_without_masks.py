"""Photographs without masks or val split: the stages that would score them do without."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from slams_ray import storage
from slams_ray.artifacts import Record
from slams_ray.config import DataConfig, PipelineConfig
from slams_ray.config.overrides import override
from slams_ray.errors import ConfigError
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.stages import (
    evaluate,
    infer_activation,
    pipeline,
    prepare,
    refine,
    search_threshold,
)
from slams_ray.stages.stage import Result
from slams_ray.stages.summary import headlines
from slams_ray.stages.train_systems import MapNetwork
from slams_ray.stages.training import MODEL_NAME

pytestmark = pytest.mark.ray


@pytest.fixture
def photographs(tmp_path: Path, tiny_config: PipelineConfig) -> PipelineConfig:
    """The tiny pipeline on six photographs, two of them without any label."""
    root = tmp_path / "photos"
    (root / "images").mkdir(parents=True)
    lines = ["image,labels"]
    for number in range(6):
        colour = (40 * number, 90, 200)
        Image.new("RGB", (50 + number, 40), colour).save(root / "images" / f"{number}.jpg")
        lines.append(f"{number}.jpg,{['cat', 'dog', '', 'cat;dog'][number % 4]}")
    (root / "labels.csv").write_text("\n".join(lines))
    data = DataConfig(
        format="folder", root=str(root), val_split=None, unlabelled="keep", images_per_shard=3
    )
    training = replace(tiny_config.encoder.training, batch_size=2)
    parts = ("encoder", "classifier", "activation", "segmentation")
    return replace(
        tiny_config,
        data=data,
        **{part: replace(getattr(tiny_config, part), training=training) for part in parts},
    )


def untrained(workspace: Path, kind: type[torch.nn.Module], **architecture: Any) -> Result:
    """What a training leaves, with random weights."""
    torch.manual_seed(0)
    stage = f"untrained {kind.__name__}"
    output = str(workspace / stage)
    settings = {"backbone_name": "tiny_resnet", "output_stride": 8, "num_classes": 2}
    settings |= architecture
    model = dump_network(kind(**settings), settings, ("background", "cat", "dog"))
    storage.write_bytes(f"{output}/{MODEL_NAME}", model)
    record = Record(stage=stage, fingerprint=stage, config={}, inputs={}, seconds=0, num_rows=0)
    return Result(output_dir=output, record=record, cached=True)


def test_the_stages_after_training_choose_and_score_without_masks(
    ray_cluster: None, photographs: PipelineConfig, tmp_path: Path
) -> None:
    config, workspace = photographs, tmp_path / "runs"
    with pipeline.open_session(config, str(workspace), "photos") as session:
        context = pipeline.make_context(config, session)
        data = prepare.open_prepared(prepare.run(context, config.data))
        network = untrained(workspace, ActivationNetwork)
        networks = dict.fromkeys(config.systems, MapNetwork(trained=network, max_logit=None))
        maps = infer_activation.run(context, config.inference, data, networks)
        threshold = search_threshold.run(context, config.threshold, data, maps, config.systems)
        walked = search_threshold.Refined(step="walk", system=config.system)
        after_walk = search_threshold.run(
            context, config.threshold, data, maps, config.systems, walked
        )
        inputs = refine.RefineInputs(
            data=data, activations=maps, threshold=threshold, system=config.system
        )
        refined = refine.run(context, config.crf, inputs)
        segmentation = untrained(workspace, SegmentationNetwork, head="deeplabv2")
        scored = evaluate.run(context, config.segmentation, data, segmentation)
    assert "label-free criterion cam_foreground" in threshold.record.notes["how"]
    assert 0 < threshold.record.metrics["slams_background_threshold"] < 1
    (name,) = after_walk.record.metrics
    assert name == "slams_walk_background_threshold"
    assert after_walk.record.metrics[name] == threshold.record.metrics["slams_background_threshold"]
    assert "refined_miou" not in refined.record.metrics
    assert refined.record.num_rows == 6
    assert scored.record.notes["split"] == "train"
    assert scored.record.metrics == {}
    assert scored.record.num_rows == 6


def test_masks_that_are_not_there_cannot_be_learnt(
    ray_cluster: None, photographs: PipelineConfig, tmp_path: Path
) -> None:
    config = override(photographs, {"segmentation.learn_masks": True})
    with pytest.raises(ConfigError, match="learn_masks is True, but no training photograph"):
        pipeline.run(config, str(tmp_path / "runs"), "photos", until="prepare")


@pytest.mark.long
def test_they_go_through_all_stages(
    ray_cluster: None, photographs: PipelineConfig, tmp_path: Path
) -> None:
    result = pipeline.run(photographs, str(tmp_path / "runs"), "photos")
    assert result.summary["scored_split"] == "train"
    assert result.summary["scores"] == dict.fromkeys(headlines(photographs))
    assert {"slams_background_threshold", "ignored_fraction"} <= result.summary["choices"].keys()
    assert result.results["evaluate"].record.num_rows == 6
