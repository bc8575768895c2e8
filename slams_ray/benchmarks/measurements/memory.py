"""Measures peak memory of counting, of the walk and of evaluation as the number of images grows."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from slams_ray import storage
from slams_ray.artifacts import Record
from slams_ray.benchmarks.harness.measure import Row, growth_rows
from slams_ray.benchmarks.harness.processes import peak_of_process
from slams_ray.benchmarks.harness.shards import Shards
from slams_ray.benchmarks.measurements.refine import write_edge_network
from slams_ray.config import (
    ComputeConfig,
    InferenceConfig,
    SegmentationConfig,
    ThresholdConfig,
    TrackingConfig,
    WalkConfig,
)
from slams_ray.data.source import TRAIN
from slams_ray.inference.activation_predictor import ActivationPredictor
from slams_ray.inference.shard_work import InferMapper
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.runtime.session import TrackingSession
from slams_ray.stages import evaluate, refine_maps, search_threshold
from slams_ray.stages.infer_activation import activations_dir
from slams_ray.stages.prepare import PreparedData, Shard
from slams_ray.stages.stage import Result, StageContext
from slams_ray.stages.training import MODEL_NAME

FACTORS = (1, 4, 16)
Stage = Callable[[StageContext, Shards, Result], Result]

SYSTEMS = ("cam", "slams")
EDGES = "edges"


def memory_rows(shards: Shards, factors: Sequence[int] = FACTORS) -> list[Row]:
    """Returns rows of the peak memory of driver plus largest worker, against the first factor."""
    write_inputs(shards)
    rows = []
    stages = {"the count curve": _search, "the walk": _propagate, "evaluation": _evaluate}
    for name, stage in stages.items():
        peaks = {}
        for factor in factors:
            more = repeated(shards, factor)
            workspace = storage.join(shards.root, f"{stage.__name__}{factor}")
            work = partial(_run, stage, more, workspace)
            peaks[len(more.names) * more.images_per_shard] = peak_of_process(
                work, f"{workspace}.json"
            )
        rows += growth_rows(name, peaks)
    return rows


def write_inputs(shards: Shards) -> None:
    """Writes the other inputs of the stages: maps and networks, from random weights."""
    names = shards.description.class_names
    torch.manual_seed(0)
    architecture: dict[str, Any] = {
        "backbone_name": "tiny_resnet",
        "output_stride": 8,
        "num_classes": len(names) - 1,
    }
    predictor = ActivationPredictor(
        {method: ActivationNetwork(**architecture) for method in SYSTEMS},
        scales=(0.5,),
        flip=False,
        device=torch.device("cpu"),
    )
    mapper = InferMapper(predictor, len(names))
    for name, path in zip(shards.names, shards.paths, strict=True):
        table, _ = mapper({"images": storage.read_table(path)}, None)
        storage.write_table(storage.join(activations_dir(shards.root), name), table)
    architecture["head"] = "deeplabv2"
    model = dump_network(SegmentationNetwork(**architecture), architecture, names)
    storage.write_bytes(storage.join(shards.root, MODEL_NAME), model)
    write_edge_network(names, storage.join(shards.root, EDGES))


def repeated(shards: Shards, factor: int) -> Shards:
    """Returns the shards repeated factor times, as links with further names."""
    names = [f"{number:06d}.parquet" for number in range(len(shards.names) * factor)]
    for number, name in enumerate(names):
        source = shards.names[number % len(shards.names)]
        for directory in (shards.directory, activations_dir(shards.root)):
            if not Path(directory, name).exists():
                os.link(Path(directory, source), Path(directory, name))
    return replace(shards, names=tuple(names))


def _run(stage: Stage, shards: Shards, workspace: str) -> None:
    context = StageContext(
        workspace=workspace,
        compute=ComputeConfig(device="cpu"),
        tracking=TrackingConfig(),
        session=TrackingSession(workspace, "memory", "memory", "memory", {}),
    )
    with context.session:
        stage(context, shards, _result(shards.root))


def _search(context: StageContext, shards: Shards, made: Result) -> Result:
    return search_threshold.run(context, ThresholdConfig(), _prepared(shards), made, SYSTEMS)


def _propagate(context: StageContext, shards: Shards, made: Result) -> Result:
    inputs = refine_maps.MapInputs(
        data=_prepared(shards), activations=made, system=SYSTEMS[-1], systems=SYSTEMS
    )
    edges = _result(storage.join(shards.root, EDGES))
    return refine_maps.propagate(context, WalkConfig(), inputs, edges)


def _evaluate(context: StageContext, shards: Shards, made: Result) -> Result:
    config = SegmentationConfig(inference=InferenceConfig(scales=(0.5,), flip=False))
    return evaluate.run(context, config, _prepared(shards), made)


def _prepared(shards: Shards) -> PreparedData:
    return PreparedData(
        directory=shards.root,
        description=shards.description,
        shards={TRAIN: [Shard(n, shards.images_per_shard, n, n) for n in shards.names]},
    )


def _result(directory: str) -> Result:
    record = Record(stage="made", fingerprint="made", config={}, inputs={}, seconds=0.0, num_rows=0)
    return Result(output_dir=directory, record=record, cached=True)
