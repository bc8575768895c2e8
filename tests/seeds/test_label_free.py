import numpy as np
import pytest

from slams_ray.seeds.label_free import (
    CRITERIA,
    STABILITY_STEP,
    CriterionSums,
    choose_threshold,
    criterion_sums,
    match_foreground,
    regret,
)
from slams_ray.seeds.threshold import (
    ThresholdCounts,
    count_thresholds,
    threshold_curve,
    threshold_grid,
)

NUM_THRESHOLDS = 41


def pixels(seed: int, num: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Scores of an object (a quarter of the pixels, around .7) and background, and colours."""
    rng = np.random.default_rng(seed)
    is_object = np.arange(num) < num // 4
    scores = np.clip(np.where(is_object, 0.7, 0.15) + rng.normal(0, 0.05, num), 0, 1)
    colours = np.where(is_object[:, None], [200, 30, 40], [60, 120, 90]) + rng.normal(
        0, 9, (num, 3)
    )
    return scores.astype(np.float32), colours


def naive(scores: np.ndarray, colours: np.ndarray, threshold: float) -> dict[str, float]:
    is_above = scores > np.float32(threshold)

    def explained(values: np.ndarray) -> float:
        if is_above.all() or not is_above.any():
            return 0.0
        share = is_above.mean()
        means = values[is_above].mean(axis=0), values[~is_above].mean(axis=0)
        between = share * (1 - share) * (means[0] - means[1]) ** 2
        return float(np.sum(between) / np.sum(values.var(axis=0)))

    return {
        "bimodality": explained(scores[:, None].astype(float)),
        "colour_separation": explained(colours),
        "foreground": float(is_above.mean()),
    }


def test_variance_criteria_equal_a_loop_over_thresholds() -> None:
    scores, colours = pixels(0)
    found = criterion_sums(scores, colours, NUM_THRESHOLDS)
    for index, threshold in enumerate(threshold_grid(NUM_THRESHOLDS)):
        for name, value in naive(scores, colours, threshold).items():
            assert getattr(found, name)[index] == pytest.approx(value, abs=1e-9)


def test_stability_is_the_share_of_the_seed_that_a_small_change_leaves() -> None:
    scores, colours = pixels(1)
    found = criterion_sums(scores, colours, NUM_THRESHOLDS).stability
    grid = threshold_grid(NUM_THRESHOLDS)
    for index in (5, 16, 30):
        low = (scores > grid[index] - np.float32(STABILITY_STEP)).sum()
        high = (scores > grid[index] + np.float32(STABILITY_STEP)).sum()
        # The grid has steps of 1/40, so that .05 is two of them.
        assert found[index] == pytest.approx(high / low, abs=0.02)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_parts_two_clear_modes(criterion: str) -> None:
    sums = sum(
        (criterion_sums(*pixels(seed), NUM_THRESHOLDS) for seed in range(5)),
        CriterionSums.zeros(NUM_THRESHOLDS),
    )
    assert sums.num_images == 5
    assert 0.28 <= choose_threshold(sums, criterion) <= 0.56


@pytest.mark.parametrize("criterion", CRITERIA)
def test_maps_of_one_value_give_a_choice_and_no_nan(criterion: str) -> None:
    sums = criterion_sums(np.full(50, 0.4, np.float32), np.full((50, 3), 7.0), NUM_THRESHOLDS)
    assert all(np.isfinite(getattr(sums, name)).all() for name in CRITERIA)
    assert 0 <= choose_threshold(sums, criterion) <= 1


def test_the_amount_of_foreground_is_taken_from_the_guide() -> None:
    """The guide's object has a quarter of the pixels; these maps light up half of the image."""
    guide = criterion_sums(*pixels(0), NUM_THRESHOLDS)
    scores, colours = pixels(1)
    scores[100:200] = np.linspace(0.2, 0.6, 100)
    sums = criterion_sums(scores, colours, NUM_THRESHOLDS)
    threshold = match_foreground(sums, guide)
    assert (scores > threshold).mean() == pytest.approx(0.25, abs=0.02)
    assert match_foreground(guide, guide) == pytest.approx(
        choose_threshold(guide, "bimodality"), abs=0.1
    )


def test_the_amount_taken_leaves_background_too() -> None:
    """Four fifths are wanted; .95 would be nearest, but then hardly anything is background."""
    colours = np.zeros((100, 3))
    guide = np.where(np.arange(100) < 80, 0.8, 0.1).astype(np.float32)
    scores = np.where(np.arange(100) < 95, 0.5, 0.0).astype(np.float32)
    scores[:10] = 0.9
    sums = criterion_sums(scores, colours, NUM_THRESHOLDS)
    threshold = match_foreground(sums, criterion_sums(guide, colours, NUM_THRESHOLDS))
    assert 0.5 <= threshold < 0.9


def test_without_maps_there_is_nothing_to_choose() -> None:
    with pytest.raises(ValueError, match="no image has a class label"):
        choose_threshold(CriterionSums.zeros(4), "stability")


def test_regret_is_what_the_best_threshold_would_have_given_more() -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random((20, 20)) < 0.3).astype(np.uint8)
    maps = np.clip(truth * 0.5 + rng.random((20, 20)) * 0.5, 0, 1).astype(np.float32)[None]
    counts = count_thresholds(maps, np.array([1]), truth, 2, NUM_THRESHOLDS)
    curve = threshold_curve(counts + ThresholdCounts.zeros(2, NUM_THRESHOLDS))
    assert regret(curve, curve.best_threshold) == 0
    assert regret(curve, 0.05) == pytest.approx(curve.best_miou - curve.miou[2])
    assert regret(curve, 0.05) > 0
