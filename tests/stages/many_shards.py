"""A driver that takes many shards of one tiny image through the data stages, and what it cost it.

python -m tests.stages.many_shards WORKSPACE NUM_SHARDS

prints one JSON object. A process of its own, because the peak of a process never goes down again.
"""

import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from slams_ray import storage
from slams_ray.artifacts import RECORD_NAME, Record
from slams_ray.config import (
    CrfConfig,
    DataConfig,
    InferenceConfig,
    PipelineConfig,
    SegmentationConfig,
    ThresholdConfig,
)
from slams_ray.data.stored_maps import activation_schema, stored_size
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.stages import evaluate, pipeline, prepare, refine, search_threshold
from slams_ray.stages.infer_activation import activations_dir
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Result, StageContext
from slams_ray.stages.training import MODEL_NAME

NUM_CLASSES, SIDE = 80, 8


def write_photographs(root: Path, num_images: int) -> None:
    """A folder data set: image i shows class i modulo 80, its mask too."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    classes = [f"class {number}" for number in range(NUM_CLASSES)]
    lines = ["image,labels"]
    for number in range(num_images):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(
            root / "images" / f"{number}.png"
        )
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[2:6, 2:6] = 1 + number % NUM_CLASSES
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
        lines.append(f"{number}.png,{classes[number % NUM_CLASSES]}")
    (root / "labels.csv").write_text("\n".join(lines))
    (root / "classes.txt").write_text("\n".join(classes))


def write_activations(data: PreparedData, output_dir: str) -> Result:
    """Maps as the networks would leave them."""
    height, width = stored_size(SIDE, SIDE)
    for name in data.names("train"):
        images = storage.read_table(f"{data.images('train')}/{name}", ["image_id", "image_labels"])
        maps = np.random.default_rng(len(name)).integers(0, 256, height * width, np.uint8).tobytes()
        rows = [
            row | {"height": SIDE, "width": SIDE, "cam": maps, "slams": maps}
            for row in images.to_pylist()
        ]
        table = pa.Table.from_pylist(rows, schema=activation_schema(("cam", "slams")))
        storage.write_table(f"{activations_dir(output_dir)}/{name}", table)
    return made_up("infer_activation", output_dir)


def write_network(data: PreparedData, output_dir: str) -> Result:
    """A segmentation network that was never trained."""
    architecture = {
        "backbone_name": "tiny_resnet",
        "output_stride": 8,
        "num_classes": NUM_CLASSES,
        "head": "deeplabv2",
    }
    network = SegmentationNetwork(**architecture)
    model = dump_network(network, architecture, data.description.class_names)
    storage.write_bytes(f"{output_dir}/{MODEL_NAME}", model)
    return made_up("train_segmentation", output_dir)


def made_up(stage: str, output_dir: str) -> Result:
    record = Record(stage=stage, fingerprint="made up", config={}, inputs={}, seconds=0, num_rows=0)
    return Result(output_dir=output_dir, record=record, cached=True)


def run_stages(context: StageContext, config: PipelineConfig) -> list[Result]:
    prepared = prepare.run(context, config.data)
    data = prepare.open_prepared(prepared)
    activations = write_activations(data, f"{context.workspace}/infer_activation/made-up")
    threshold = search_threshold.run(context, config.threshold, data, activations, config.systems)
    refined = refine.run(
        context,
        config.crf,
        refine.RefineInputs(
            data=data, activations=activations, threshold=threshold, system="slams"
        ),
    )
    network = write_network(data, f"{context.workspace}/train_segmentation/made-up")
    evaluated = evaluate.run(context, config.segmentation, data, network)
    return [prepared, threshold, refined, evaluated]


def count_calls() -> Counter[str]:
    """Counts what this process asks of the store, from now on."""
    calls: Counter[str] = Counter()

    def counted(name: str) -> Any:
        original = getattr(storage, name)

        def call(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return original(*arguments, **options)

        return call

    for name in ("list_names", "table_metadata", "exists"):
        setattr(storage, name, counted(name))
    return calls


def main(workspace: str, num_shards: int) -> dict[str, Any]:
    root = Path(workspace) / "photographs"
    write_photographs(root, num_shards)
    config = PipelineConfig(
        data=DataConfig(format="folder", root=str(root), val_split=None, images_per_shard=1),
        threshold=ThresholdConfig(num_thresholds=64),
        crf=CrfConfig(iterations=0, export="none"),
        segmentation=SegmentationConfig(inference=InferenceConfig(scales=(1.0,), flip=False)),
    )
    with pipeline.open_session(config, workspace, "scale") as session:
        context = pipeline.make_context(config, session)
        calls = count_calls()
        started = time.monotonic()
        first = run_stages(context, config)
        seconds, first_calls = time.monotonic() - started, dict(calls)
        for result in first:
            storage.remove(result.path(RECORD_NAME))
        calls.clear()
        second = run_stages(context, config)
    return {
        "shards": num_shards,
        "rows": [result.record.num_rows for result in first],
        "same_again": [
            a.record.metrics == b.record.metrics for a, b in zip(first, second, strict=True)
        ],
        "calls": first_calls,
        "calls_again": dict(calls),
        "seconds": round(seconds, 1),
        "driver_cpu_seconds": round(time.process_time(), 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
