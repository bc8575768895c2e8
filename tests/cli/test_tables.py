"""Tables on the console."""

import pytest

from slams_ray.cli.tables import print_faults, print_scores, print_summary
from slams_ray.faults.injection import FaultRow
from slams_ray.studies.comparison import Score


def score(method: str, seed: int, metric: str, value: float, refinement: str = "") -> Score:
    return Score(method=method, seed=seed, metric=metric, value=value, refinement=refinement)


def rows(text: str) -> dict[str, list[str]]:
    lines = [line.split("  ") for line in text.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    return {line[0]: line[1:] for line in cells if line}


def test_means_spreads_and_paired_differences(capsys: pytest.CaptureFixture[str]) -> None:
    scores = [
        score(method, seed, "seed_miou", value)
        for method, values in (("cam", (0.4, 0.5)), ("slams", (0.45, 0.49)))
        for seed, value in enumerate(values)
    ]
    scores += [score(method, 0, "training_steps", 120) for method in ("cam", "slams")]
    print_scores(scores, "cam")
    found = rows(capsys.readouterr().out)
    assert found["cam"] == ["45.00 ± 7.07", "120"]
    assert found["slams"] == ["47.00 ± 2.83", "120"]
    assert found["slams - cam"] == ["+2.00 (1/2)"]


def test_a_network_on_masks_has_a_row_and_no_difference(
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores = [
        score("cam", 0, "seed_miou", 0.4),
        score("cam", 0, "segmentation_miou", 0.38, "crf"),
        score("slams", 0, "seed_miou", 0.5),
        score("slams", 0, "segmentation_miou", 0.48, "crf"),
        score("masks", 0, "segmentation_miou", 0.8),
    ]
    print_scores(scores, "cam")
    found = rows(capsys.readouterr().out)
    assert found["masks"] == ["80.00"]
    assert found["slams - cam"] == ["+10.00 (1/1)", "+10.00 (1/1)"]
    assert "masks - cam" not in found


def test_names_and_paths_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    workspace = "/data/[old]/:cat:/run"
    summary = {
        "workspace": workspace,
        "stages": [
            {
                "stage": "refine",
                "seconds": 1.5,
                "rows": 3,
                "metrics": {"[red]miou": 0.5},
                "output": f"{workspace}/refine/[bold]ab[/bold]",
            }
        ],
        "iou_of_classes": {},
        "scores": {"[x] miou": 0.25, "absent": None},
        "warnings": ["no pixel of [/cat] in 'a[/b].jpg'"],
        "scored_split": "val",
        "skipped_images": 0,
        "montage": None,
    }
    print_summary(summary)
    found = capsys.readouterr().out
    assert f"outputs in {workspace}\n" in found
    assert "warning: no pixel of [/cat] in 'a[/b].jpg'\n" in found
    assert "[x] miou           25.00 %\n" in found
    assert "[red]miou 0.5" in found
    assert "refine/[bold]ab[/bold]" in found


@pytest.mark.parametrize("score", [0.5, None])
def test_a_finished_run_says_what_to_look_at_and_what_to_do_next(
    score: float | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["slams pipeline"])
    summary = {
        "workspace": "/runs/a",
        "stages": [],
        "iou_of_classes": {"background": 0.9, "cat": 0.4567},
        "scores": {"segmentation_miou": score},
        "warnings": [],
        "scored_split": "val",
        "skipped_images": 0,
        "montage": "montage.png",
    }
    print_summary(summary)
    found = capsys.readouterr().out
    assert "/runs/a/montage.png\n" in found
    assert "IoU of the network in %: background 90.0, cat 45.7\n" in found
    assert "next: slams predict --model /runs/a --images PHOTOS --output MASKS\n" in found
    assert ("no mIoU, because there are no masks" in found) == (score is None)


def test_methods_and_faults_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores(
        [score("scales=[1.0]", 0, "seed_[x]", 0.4), score("a[/b]", 0, "seed_[x]", 0.5)], ""
    )
    found = rows(capsys.readouterr().out)
    assert found["seed [x]"] == []
    assert (found["scales=[1.0]"], found["a[/b]"]) == (["40.00"], ["50.00"])
    fault = FaultRow(
        stage="refine",
        fault="kill [/worker]",
        survived=True,
        seconds_lost=2.0,
        redone=1,
        identical=False,
        num_commands=1,
    )
    print_faults([fault])
    assert rows(capsys.readouterr().out)["refine"] == ["kill [/worker]", "yes", "2", "1", "no"]
