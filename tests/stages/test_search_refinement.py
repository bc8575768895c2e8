"""Trials with the CRF in the loop, on the tiny pipeline."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from slams_ray.config import ActivationInferenceConfig, CrfConfig, SearchConfig
from slams_ray.errors import ConfigError
from slams_ray.refinement.pseudo_label import ConfidentPair
from slams_ray.refinement.trial import MAPS
from slams_ray.runtime.cluster import check_cpus
from slams_ray.runtime.trial_plan import SearchTrial
from slams_ray.stages import pipeline, refine, search_choice
from slams_ray.stages.map_sets import MapSet
from slams_ray.stages.prepare import open_prepared
from slams_ray.stages.search_refinement import SPACE, needed_scales, warnings_of
from slams_ray.stages.settings_report import values_around
from slams_ray.stages.slices import ScoredSlices, read_slice
from slams_ray.stages.trials import Evaluator, candidates, score_slices
from slams_ray.workers.refinement import make_refinement

pytestmark = pytest.mark.ray

SEARCH = SearchConfig(
    num_samples=3,
    algorithm="random",
    num_images=6,
    num_slices=2,
    num_thresholds=3,
    iterations=(1,),
    cam_power=(1.0,),
    bilateral_sxy_px=(20.0, 30.0),
    scales=("1", "0.5,1"),
    cpus_per_trial=0.5,
    max_concurrent=1,
)


@pytest.fixture(scope="module")
def workspace(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.copy_to(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def results(finished: Any, workspace: Path) -> Any:
    config = replace(finished.config, search=SEARCH)
    return pipeline.run(config, str(workspace), "tiny", until="refine").results


def shared_directory(results: Any) -> str:
    """Of slices, maps and trials."""
    return str(results["search_refinement"].record.notes["shared_directory"])


@pytest.fixture(scope="module")
def content(results: Any) -> dict[str, Any]:
    path = Path(results["search_refinement"].output_dir) / "search.json"
    return json.loads(path.read_text())


def test_the_best_finished_trial_is_chosen(content: dict[str, Any]) -> None:
    assert len(content["trials"]) == 3
    finished = [t for t in content["trials"] if len(t["history"]) == 2]
    best = max(finished, key=lambda t: t["history"][-1]["miou"])
    assert content["best"]["trial"] == best["trial_id"]
    assert content["searched_miou"] == best["history"][-1]["miou"]
    assert content["best"]["trial"] == min(
        t["trial_id"] for t in finished if t["history"][-1]["miou"] == content["searched_miou"]
    )


def test_trials_hold_the_settings_that_their_form_uses_and_all_differ(
    content: dict[str, Any],
) -> None:
    points = [trial["point"] for trial in content["trials"]]
    for point in points:
        assert ("gt_prob" in point) == (point["form"] == "label")
        assert ("cam_power" in point) == (point["form"] != "label")
        assert set(point) | {"gt_prob", "cam_power"} == {*SPACE, "scales"}
    assert len({json.dumps(point) for point in points}) == len(points)


def test_searched_and_held_out_images_are_declared_and_apart(
    results: Any, content: dict[str, Any]
) -> None:
    assert content["split"] == "train"
    assert (content["searched_images"], content["held_out_images"]) == (6, 6)
    slices = Path(shared_directory(results)) / "slices"
    ids = {
        kind: {
            image_id
            for path in slices.glob(f"{kind}-*.parquet")
            for image_id in pq.read_table(path).column("image_id").to_pylist()
        }
        for kind in ("searched", "held-out")
    }
    assert len(ids["searched"]) == len(ids["held-out"]) == 6
    assert not ids["searched"] & ids["held-out"]


def scored_slices(results: Any, names: list[str]) -> ScoredSlices:
    return ScoredSlices(
        directory=shared_directory(results),
        system="slams",
        searched=names,
        held_out=(),
        num_searched=6,
        num_held_out=0,
        num_all_classes=len(open_prepared(results["prepare"]).description.class_names),
    )


def test_scores_of_another_choice_are_not_taken_for_those_of_this_one(
    finished: Any, results: Any, tmp_path: Path
) -> None:
    """A run that was killed before its record may have scored another trial."""
    names = ["searched-0.parquet", "searched-1.parquet"]
    attempt: Any = SimpleNamespace(
        output_dir=str(tmp_path), fingerprint="a", nodes=Counter(), devices=Counter()
    )
    evaluator = Evaluator(slices=scored_slices(results, names), attempt=attempt, pool=None)
    refinement = make_refinement(finished.config.crf)
    found = [
        evaluator.mious("chosen", names, refinement, [value], MapSet(scales="1"))
        for value in (0.05, 0.95, 0.05)
    ]
    assert found[0] == found[2] != found[1]


def test_the_configured_threshold_is_chosen_on_the_searched_half_as_that_of_a_trial(
    finished: Any, results: Any, content: dict[str, Any]
) -> None:
    names = [[f"{kind}-{number}.parquet" for number in (0, 1)] for kind in ("searched", "held-out")]

    def best_of(slices: list[str], config: SearchConfig) -> dict[str, float]:
        scored = scored_slices(results, slices)
        return list(score_slices(config, finished.config.crf, scored, {"scales": "1"}))[-1]

    searched = best_of(names[0], SEARCH)
    assert content["configured_chosen"] == searched["chosen"]
    assert content["configured_searched_miou"] == pytest.approx(searched["miou"])
    threshold = searched["chosen"]
    held_out = best_of(names[1], replace(SEARCH, thresholds=(threshold, threshold)))
    assert content["configured_held_out_miou"] == pytest.approx(held_out["miou"])
    assert "held-out images took no part" in content["held_out_comparison"]


def test_refine_uses_what_was_chosen(results: Any, content: dict[str, Any]) -> None:
    config = results["refine"].record.config
    best = content["best"]
    for name in set(SPACE) & set(best["point"]):
        assert config[name] == best["point"][name]
    assert config["pair"] == pytest.approx({name: best[name] for name in search_choice.PAIR})


def test_a_pair_that_a_search_chose_stays_as_it_is(results: Any) -> None:
    inputs = refine.RefineInputs(
        data=open_prepared(results["prepare"]),
        activations=results["infer_activation"],
        threshold=results["search_threshold"],
        system="slams",
        background_threshold=0.3,
    )
    assert inputs.pair(CrfConfig(background_margin=0.25)).background == pytest.approx(0.05)
    of_the_seeds = replace(inputs, background_threshold=None).pair(CrfConfig(background_margin=1.0))
    assert of_the_seeds.background == pytest.approx(of_the_seeds.chosen / 3)


def test_all_maps_have_the_scales_that_were_chosen(results: Any, content: dict[str, Any]) -> None:
    scales = results["infer_activation"].record.config["scales"]
    assert ",".join(f"{scale:g}" for scale in scales) == content["best"]["point"]["scales"]
    inferred = results["infer_activation"].record.fingerprint
    for stage in ("search_threshold", "refine"):
        assert results[stage].record.inputs["infer_activation"] == inferred


def test_trials_see_the_maps_of_their_scales(results: Any, finished: Any) -> None:
    slices = ScoredSlices(
        directory=shared_directory(results),
        system="slams",
        searched=(),
        held_out=(),
        num_searched=0,
        num_held_out=0,
        num_all_classes=0,
    )
    configured = read_slice(slices, "searched-0.parquet", MapSet(scales="1")).to_pylist()
    wider = read_slice(slices, "searched-0.parquet", MapSet(scales="0.5,1")).to_pylist()
    stored = finished.result.results["infer_activation"].path("activations")
    maps = {
        row["image_id"]: row["slams"]
        for path in Path(stored).glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    assert [row[MAPS] for row in configured] == [maps[row["image_id"]] for row in configured]
    assert [row["image_id"] for row in wider] == [row["image_id"] for row in configured]
    assert all(len(a[MAPS]) == len(b[MAPS]) for a, b in zip(wider, configured, strict=True))
    assert [row[MAPS] for row in wider] != [row[MAPS] for row in configured]


@pytest.mark.parametrize("stage", ["search_refinement", "refine"])
def test_curve_and_labels_at_other_settings_are_drawn(results: Any, stage: str) -> None:
    for name in ("threshold_curve.png", "settings.png"):
        with Image.open(results[stage].path(name)) as picture:
            assert np.asarray(picture.convert("L")).std() > 0


def test_mlflow_has_a_run_per_trial_and_the_best_point_as_tags(
    results: Any, workspace: Path, content: dict[str, Any]
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlflow.db")
    run = client.get_run(results["search_refinement"].record.mlflow_run_id)
    children = [
        r
        for r in client.search_runs([run.info.experiment_id])
        if r.data.tags.get("mlflow.parentRunId") == run.info.run_id
    ]
    assert len(children) == 3
    searched = ("scales", "form", "bilateral_sxy_px", "bilateral_srgb", "bilateral_compat")
    points = [{k: str(t["point"].get(k, "unused")) for k in searched} for t in content["trials"]]
    assert sorted(map(str, (sorted(r.data.params.items()) for r in children))) == sorted(
        map(str, (sorted(p.items()) for p in points))
    )
    for name, value in content["best"]["point"].items():
        assert run.data.tags[f"best.{name}"] == str(value)
    link = unquote(run.data.tags["compare"])
    assert all(child.info.run_id in link for child in children)
    assert run.data.tags["compare"] in run.data.tags["mlflow.note.content"]


def test_a_rerun_searches_no_more(finished: Any, results: Any, workspace: Path) -> None:
    config = replace(finished.config, search=replace(SEARCH, max_concurrent=2))
    again = pipeline.run(config, str(workspace), "tiny", until="search_threshold")
    assert again.results["search_refinement"].cached


def test_more_trials_extend_the_search_and_fewer_give_what_they_gave(
    finished: Any, results: Any, workspace: Path, content: dict[str, Any]
) -> None:
    trials = Path(shared_directory(results)) / "trials"
    kept = {path.name: path.stat().st_mtime_ns for path in trials.glob("*.json")}
    assert len(kept) == 3

    def run(num_samples: int) -> tuple[Any, dict[str, Any]]:
        search = replace(SEARCH, num_samples=num_samples)
        config = replace(finished.config, search=search)
        found = pipeline.run(config, str(workspace), "tiny", until="search_threshold")
        result = found.results["search_refinement"]
        return result, json.loads(Path(result.path("search.json")).read_text())

    longer, extended = run(4)
    assert not longer.cached
    assert extended["trials"][:3] == content["trials"]
    assert len(extended["trials"]) == 4
    now = {path.name: path.stat().st_mtime_ns for path in trials.glob("*.json")}
    assert {name: now[name] for name in kept} == kept
    again, same = run(3)
    assert again.cached
    assert same == content


def test_failed_trials_are_a_warning() -> None:
    good, bad = (
        SearchTrial(trial_id=name, point={}, history=[], error=error)
        for name, error in (("00000", None), ("00001", "out of memory"))
    )
    assert warnings_of([good, good], "/runs/search") == []
    (found,) = warnings_of([good, bad], "/runs/search")
    assert found.startswith("1 of 2 trials failed, such as 00001")
    assert "remove /runs/search" in found


def test_the_configured_scales_are_needed_also_where_trials_have_others() -> None:
    inference = ActivationInferenceConfig(scales=(0.5, 1.0))
    asked = SearchConfig(num_samples=1, scales=("0.75",))
    assert set(needed_scales(asked, inference)) == {"0.5,1", "0.75"}
    assert needed_scales(SearchConfig(num_samples=1), inference) == ["0.5,1"]


def test_candidates_span_their_range() -> None:
    config = SearchConfig(thresholds=(0.1, 0.5), alphas=(2.0, 8.0), num_thresholds=3)
    assert candidates(config, "label") == pytest.approx([0.1, 0.3, 0.5])
    assert candidates(config, "power") == pytest.approx([8.0, 4.0, 2.0])


def test_settings_too_low_and_too_high_stand_around_the_chosen_one() -> None:
    assert values_around("label", 0.4) == pytest.approx((0.15, 0.4, 0.65))
    assert values_around("constant", 0.1) == pytest.approx((0.02, 0.1, 0.35))
    low, chosen, high = values_around("power", 6.0)
    assert low < chosen == 6.0 < high


def test_the_confident_pair_bounds_the_ignore_band_around_the_chosen_alpha() -> None:
    crf, threshold = search_choice.apply_point(
        CrfConfig(),
        {"form": "power", "cam_power": 1.3},
        ConfidentPair(background=12.0, chosen=6.0, foreground=3.0),
    )
    assert (crf.form, crf.alpha, crf.cam_power, threshold) == ("power", 6.0, 1.3, None)
    assert crf.alpha_pair == (3.0, 12.0)


def test_the_confident_pair_becomes_margins_around_the_chosen_threshold() -> None:
    crf, threshold = search_choice.apply_point(
        CrfConfig(), {"form": "label"}, ConfidentPair(background=0.1, chosen=0.25, foreground=0.45)
    )
    assert threshold == 0.25
    assert (crf.foreground_margin, crf.background_margin) == pytest.approx((0.2, 0.15))


def test_too_few_masks_are_said_before_any_trial(
    finished: Any, tmp_path: Path, workspace: Path
) -> None:
    config = replace(finished.config, search=replace(SEARCH, num_slices=20, num_images=40))
    with pytest.raises(ConfigError, match="only 24 training images have masks"):
        pipeline.run(config, str(workspace), "tiny", until="search_threshold")


def test_trials_that_fit_no_node_are_refused(ray_cluster: None) -> None:
    with pytest.raises(ConfigError, match=r"search\.cpus_per_trial is 64, but no node has more"):
        check_cpus("search.cpus_per_trial", 64.0)
    check_cpus("search.cpus_per_trial", 1.0)
