"""Means of step metrics: the same wherever a checkpoint falls and whoever resumes."""

import torch

from slams_ray.runtime.metric_window import MetricWindow, Sums

LOSSES = (0.1, 0.7, 1.3, 2.9, 3.7)


def filled(saved: Sums, losses: tuple[float, ...]) -> MetricWindow:
    window = MetricWindow(1.0, saved)
    for loss in losses:
        window.add({"loss": torch.tensor(loss)})
    return window


def test_a_resumed_window_has_the_means_of_one_that_was_not_interrupted() -> None:
    whole = filled({}, LOSSES[:2])
    saved = whole.sums()
    for loss in LOSSES[2:]:
        whole.add({"loss": torch.tensor(loss)})
    expected = whole.means()
    assert filled(saved, LOSSES[2:]).means() == expected
    assert abs(expected["loss"] - sum(LOSSES) / 5) < 1e-6


def test_a_window_starts_anew_when_it_is_logged() -> None:
    window = filled({}, LOSSES)
    window.means()
    assert window.sums() == {}
    window.add({"loss": torch.tensor(4.0)})
    assert window.means() == {"loss": 4.0}


def test_a_metric_that_some_steps_have_is_averaged_over_those() -> None:
    window = filled({}, LOSSES[:2])
    window.add({"loss": torch.tensor(0.4), "contrast": torch.tensor(0.5)})
    window.sums()
    window.add({"loss": torch.tensor(0.8)})
    means = window.means()
    assert abs(means["loss"] - 0.5) < 1e-6
    assert means["contrast"] == 0.5
