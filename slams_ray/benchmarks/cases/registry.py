"""Registry of benchmark cases: name -> settings, and function that measures the rows."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from slams_ray.benchmarks.cases import (
    crf,
    gpu,
    inference,
    memory,
    overhead,
    predict,
    refinement,
    serve,
    threshold,
    training,
)
from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row

CASES: Mapping[str, tuple[type[BenchmarkCommand], "Callable[[Any], list[Row]]"]] = {
    "crf": (crf.CrfCommand, crf.measure),
    "refinement": (refinement.RefinementCommand, refinement.measure),
    "threshold": (threshold.ThresholdCommand, threshold.measure),
    "inference": (inference.InferenceCommand, inference.measure),
    "training": (training.TrainingCommand, training.measure),
    "overhead": (overhead.OverheadCommand, overhead.measure),
    "memory": (memory.MemoryCommand, memory.measure),
    "predict": (predict.PredictCommand, predict.measure),
    "serve": (serve.ServeCommand, serve.measure),
    "gpu": (gpu.GpuCommand, gpu.measure),
}
