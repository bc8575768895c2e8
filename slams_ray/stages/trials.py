"""Trials of a search: their reports, and the scores of the choice on held-out images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from slams_ray import storage
from slams_ray.artifacts import fingerprint, to_plain
from slams_ray.config import CrfConfig, SearchConfig
from slams_ray.metrics import miou_of_counts
from slams_ray.refinement.pseudo_label import Refinement
from slams_ray.refinement.trial import SLICE_SCHEMA, PairCounts, count_slice
from slams_ray.runtime.pools import Pool
from slams_ray.runtime.shards import ShardInput, ShardJob, sum_shards
from slams_ray.stages.map_sets import MapSet, map_set_of
from slams_ray.stages.slices import ScoredSlices, read_slice, slices_dir
from slams_ray.stages.stage import Attempt
from slams_ray.workers.refinement import make_refinement, make_scorer, on_own_device

OBJECTIVE = "miou"


def candidates(config: SearchConfig, form: str) -> list[float]:
    """Returns evenly spaced background thresholds, or logarithmically spaced alphas.

    The first value labels most pixels as object.
    """
    if form == "power":
        return [float(v) for v in np.geomspace(*config.alphas, config.num_thresholds)[::-1]]
    return [float(v) for v in np.linspace(*config.thresholds, config.num_thresholds)]


def split_point(point: Mapping[str, Any]) -> tuple[MapSet, dict[str, Any]]:
    """Splits a point into its set of maps and its CRF settings."""
    crf = {name: value for name, value in point.items() if name not in ("scales", "walk")}
    return map_set_of(point), crf


def score_slices(
    config: SearchConfig, crf: CrfConfig, slices: ScoredSlices, point: Mapping[str, Any]
) -> Iterator[dict[str, float]]:
    """Yields a report after each searched slice.

    A report holds the best mIoU over the thresholds on all slices so far, its threshold, and the
    confident pair around it.

    Args:
        crf: settings that the point does not contain.
    """
    maps, settings = split_point(point)
    refinement = on_own_device(make_refinement(replace(crf, **settings)))
    values = candidates(config, refinement.form)
    counts = PairCounts.zeros(len(values), slices.num_all_classes)
    for number, name in enumerate(slices.searched, start=1):
        table = read_slice(slices, name, maps)
        counts = counts + count_slice(table, refinement, values, slices.num_all_classes)
        scores = counts.miou()
        best = int(np.nanargmax(scores))
        pair = counts.best_pair(best, config.max_ignored)
        yield {
            OBJECTIVE: float(scores[best]),
            "chosen": values[best],
            "background": values[pair[0]],
            "foreground": values[pair[1]],
            "confident_miou": miou_of_counts(counts.classes[pair]),
            "ignored_fraction": counts.ignored(*pair),
            "num_slices": number,
        }


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Scores refinements on slices, on the cluster.

    Attributes:
        attempt: attempt whose output directory gets the counts.
        pool: pool of workers, as in `ShardJob`.
    """

    slices: ScoredSlices
    attempt: Attempt
    pool: Callable[[], Pool | None] | None

    def mious(
        self,
        label: str,
        names: Sequence[str],
        refinement: Refinement,
        values: Sequence[float],
        maps: MapSet,
    ) -> list[float]:
        """Returns the mIoU on the named slices at each threshold or alpha.

        Args:
            label: name of the evaluation in progress lines, and of its directory.
            values: see `candidates`.
            maps: set of maps that is refined.
        """
        columns = tuple(SLICE_SCHEMA.names)
        directory = self.slices.directory
        job = ShardJob(
            label=label,
            names=names,
            inputs={
                "slices": ShardInput(directory=slices_dir(directory), columns=columns),
                "maps": ShardInput(
                    directory=maps.directory(directory),
                    columns=("image_id", maps.column(self.slices.system)),
                ),
            },
            output_dir=storage.join(self.attempt.output_dir, "scored", label),
            fingerprint=fingerprint(
                label,
                {"refinement": to_plain(refinement), "values": values, "maps": to_plain(maps)},
                {"search": self.attempt.fingerprint},
            ),
            nodes=self.attempt.nodes,
            devices=self.attempt.devices,
            make_work=partial(
                make_scorer,
                maps.column(self.slices.system),
                refinement,
                values,
                self.slices.num_all_classes,
            ),
            pool=self.pool,
        )
        counts = sum_shards(job, ["class_counts"])["class_counts"]
        return [miou_of_counts(of_value) for of_value in counts]


def held_out_scores(
    config: SearchConfig,
    crf: CrfConfig,
    configured_maps: MapSet,
    point: Mapping[str, Any],
    chosen: float,
    evaluator: Evaluator,
) -> dict[str, float]:
    """Returns the mIoU of the chosen and the configured refinement on held-out images.

    The threshold or alpha of the configured refinement is chosen like that of a trial: it is the
    best of the grid on the searched images.

    Args:
        crf: configured refinement.
        configured_maps: maps of the configured refinement.
        point: point of the chosen trial.
        chosen: threshold or alpha of the chosen trial.
    """
    slices = evaluator.slices
    maps, settings = split_point(point)
    refinement = make_refinement(replace(crf, **settings))
    (held_out,) = evaluator.mious("chosen", slices.held_out, refinement, [chosen], maps)
    configured = make_refinement(crf)
    values = candidates(config, crf.form)
    searched = evaluator.mious(
        "configured-searched", slices.searched, configured, values, configured_maps
    )
    best = int(np.nanargmax(searched))
    (configured_held_out,) = evaluator.mious(
        "configured", slices.held_out, configured, [values[best]], configured_maps
    )
    return {
        "held_out_miou": held_out,
        "configured_chosen": values[best],
        "configured_searched_miou": searched[best],
        "configured_held_out_miou": configured_held_out,
    }
