"""Measures concurrent trials of a search against plain processes that score the same slices."""

import multiprocessing
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from slams_ray import storage
from slams_ray.benchmarks.harness.measure import Row, row
from slams_ray.benchmarks.harness.pictures import HEIGHT, WIDTH, generated
from slams_ray.benchmarks.harness.workers import cores, ray_connection, warm_rate
from slams_ray.benchmarks.measurements.threshold import NUM_ALL_CLASSES, images
from slams_ray.config import CrfConfig, SearchConfig
from slams_ray.data.image import encode_jpeg, encode_mask
from slams_ray.data.schema import voc_palette
from slams_ray.refinement.trial import SLICE_SCHEMA, maps_schema
from slams_ray.runtime.search import search
from slams_ray.runtime.search_space import SearchSpace
from slams_ray.runtime.trial_plan import SearchPlan
from slams_ray.stages.slices import ScoredSlices, maps_dir, slices_dir
from slams_ray.stages.trials import OBJECTIVE, score_slices

SCALES = "1"
POINT = {"scales": SCALES, "form": "label"}
IMAGES_PER_SLICE = 4
SYSTEM = "slams"
_FINISHED = "finished"


def trial_row(num_trials: int, num_slices: int, rounds: int) -> Row:
    """Returns the row of N warm Ray Tune trials against N processes, in slices per second."""
    ratios = []
    with TemporaryDirectory() as directory, cores(num_trials), ray_connection():
        names = write_slices(directory, num_slices, IMAGES_PER_SLICE)
        for number in range(rounds):
            tried = trials_rate(directory, names, num_trials, f"search-{number}")
            ratios.append(tried / processes_rate(directory, names, num_trials))
    return row(
        f"{num_trials} concurrent trials, 8 thresholds each",
        f"{num_trials} plain processes side by side",
        ratios,
        goal=0.9,
    )


def write_slices(directory: str, num_slices: int, images_per_slice: int) -> list[str]:
    """Writes slices of generated images of VOC size and their maps. Returns the names of slices."""
    palette = voc_palette(NUM_ALL_CLASSES)
    names = []
    for number in range(num_slices):
        rows: list[dict[str, Any]] = []
        labelled = images(images_per_slice, NUM_ALL_CLASSES)
        for (maps, classes, truth), (image, _) in zip(
            labelled, generated(images_per_slice), strict=True
        ):
            rows.append(
                {
                    "image_id": f"{number}-{len(rows)}",
                    "image": encode_jpeg(image),
                    "height": HEIGHT,
                    "width": WIDTH,
                    "mask": encode_mask(truth, palette),
                    "image_labels": classes.tolist(),
                    SYSTEM: maps.tobytes(),
                }
            )
        names.append(f"{number}.parquet")
        for folder, schema in (
            (slices_dir(directory), SLICE_SCHEMA),
            (maps_dir(directory, SCALES), maps_schema(SYSTEM)),
        ):
            table = pa.Table.from_pylist(rows, schema=schema)
            storage.write_table(storage.join(folder, names[-1]), table)
    return names


def _score(
    directory: str, names: list[str], point: Mapping[str, Any]
) -> Iterator[dict[str, float]]:
    """Yields the reports of a trial, each with its time."""
    settings = {name: value for name, value in point.items() if name != "copy"}
    crf = replace(CrfConfig(), iterations=4)
    slices = ScoredSlices(
        directory=directory,
        system=SYSTEM,
        searched=names,
        held_out=(),
        num_searched=len(names) * IMAGES_PER_SLICE,
        num_held_out=0,
        num_all_classes=NUM_ALL_CLASSES,
    )
    for report in score_slices(SearchConfig(), crf, slices, settings):
        yield report | {_FINISHED: time.time()}


def trials_rate(directory: str, names: list[str], num_trials: int, label: str) -> float:
    """Returns slices per second of all trials of a search together."""
    trials = search(
        partial(_score, directory, names),
        SearchSpace(
            {key: (value,) for key, value in POINT.items()} | {"copy": tuple(range(num_trials))}
        ),
        SearchPlan(
            algorithm="grid",
            num_samples=num_trials,
            metric=OBJECTIVE,
            num_reports=len(names),
            feedback_delay=num_trials,
            max_concurrent=num_trials,
            cpus_per_trial=1,
            time_budget_seconds=None,
            seed=0,
        ),
        storage.join(directory, label),
        label=lambda _: "trial",
    )
    return warm_rate([[h[_FINISHED] for h in trial.history] for trial in trials], num_trials)


def processes_rate(directory: str, names: list[str], num_processes: int) -> float:
    """Returns slices per second of all processes together."""
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.SimpleQueue()
    processes = [
        spawn.Process(target=_process, args=(directory, names, number, queue))
        for number in range(num_processes)
    ]
    for process in processes:
        process.start()
    times = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return warm_rate(times, num_processes)


def _process(directory: str, names: list[str], number: int, queue: Any) -> None:
    import torch

    torch.set_num_threads(1)
    queue.put([report[_FINISHED] for report in _score(directory, names, POINT | {"copy": number})])
