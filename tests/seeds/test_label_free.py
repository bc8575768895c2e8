import numpy as np
import pytest

from slams_ray.seeds.label_free import (
    CriterionSums,
    criterion_sums,
    match_foreground,
    most_bimodal,
    regret,
)
from slams_ray.seeds.threshold import (
    ThresholdCounts,
    count_thresholds,
    threshold_curve,
    threshold_grid,
)

NUM_THRESHOLDS = 41


def pixels(seed: int, num: int = 400) -> np.ndarray:
    """Scores of an object (a quarter of the pixels, around .7) and of background."""
    rng = np.random.default_rng(seed)
    is_object = np.arange(num) < num // 4
    scores = np.where(is_object, 0.7, 0.15) + rng.normal(0, 0.05, num)
    return np.clip(scores, 0, 1).astype(np.float32)


def naive(scores: np.ndarray, threshold: float) -> dict[str, float]:
    is_above = scores > np.float32(threshold)
    share = is_above.mean()
    explained = 0.0
    if 0 < share < 1:
        values = scores.astype(float)
        between = share * (1 - share) * (values[is_above].mean() - values[~is_above].mean()) ** 2
        explained = float(between / values.var())
    return {"bimodality": explained, "foreground": float(share)}


def test_criteria_equal_a_loop_over_thresholds() -> None:
    scores = pixels(0)
    found = criterion_sums(scores, NUM_THRESHOLDS)
    for index, threshold in enumerate(threshold_grid(NUM_THRESHOLDS)):
        for name, value in naive(scores, threshold).items():
            assert getattr(found, name)[index] == pytest.approx(value, abs=1e-9)


def test_bimodality_separates_two_clear_modes() -> None:
    sums = sum(
        (criterion_sums(pixels(seed), NUM_THRESHOLDS) for seed in range(5)),
        CriterionSums.zeros(NUM_THRESHOLDS),
    )
    assert sums.num_images == 5
    assert 0.28 <= most_bimodal(sums) <= 0.56


def test_maps_of_one_value_give_a_choice_and_no_nan() -> None:
    sums = criterion_sums(np.full(50, 0.4, np.float32), NUM_THRESHOLDS)
    assert np.isfinite(sums.bimodality).all()
    assert 0 <= most_bimodal(sums) <= 1


def test_the_amount_of_foreground_is_taken_from_the_guide() -> None:
    """The guide's object has a quarter of the pixels; these maps light up half of the image."""
    guide = criterion_sums(pixels(0), NUM_THRESHOLDS)
    scores = pixels(1)
    scores[100:200] = np.linspace(0.2, 0.6, 100)
    sums = criterion_sums(scores, NUM_THRESHOLDS)
    threshold = match_foreground(sums, guide)
    assert (scores > threshold).mean() == pytest.approx(0.25, abs=0.02)
    assert match_foreground(guide, guide) == pytest.approx(most_bimodal(guide), abs=0.1)


def test_the_amount_taken_leaves_background_too() -> None:
    """Four fifths are wanted; .95 would be nearest, but then hardly anything is background."""
    guide = np.where(np.arange(100) < 80, 0.8, 0.1).astype(np.float32)
    scores = np.where(np.arange(100) < 95, 0.5, 0.0).astype(np.float32)
    scores[:10] = 0.9
    sums = criterion_sums(scores, NUM_THRESHOLDS)
    threshold = match_foreground(sums, criterion_sums(guide, NUM_THRESHOLDS))
    assert 0.5 <= threshold < 0.9


def test_without_maps_there_is_nothing_to_choose() -> None:
    with pytest.raises(ValueError, match="no image has a class label"):
        most_bimodal(CriterionSums.zeros(4))


def test_regret_is_what_the_best_threshold_would_have_given_more() -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random((20, 20)) < 0.3).astype(np.uint8)
    maps = np.clip(truth * 0.5 + rng.random((20, 20)) * 0.5, 0, 1).astype(np.float32)[None]
    counts = count_thresholds(maps, np.array([1]), truth, 2, NUM_THRESHOLDS)
    curve = threshold_curve(counts + ThresholdCounts.zeros(2, NUM_THRESHOLDS))
    assert regret(curve, curve.best_threshold) == 0
    assert regret(curve, 0.05) == pytest.approx(curve.best_miou - curve.miou[2])
    assert regret(curve, 0.05) > 0
