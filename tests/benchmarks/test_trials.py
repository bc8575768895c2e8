"""Both sides of the benchmark of trials score the same slices."""

from pathlib import Path

import pytest

from slams_ray.benchmarks.measurements.trials import processes_rate, trials_rate, write_slices


@pytest.mark.ray
@pytest.mark.long
def test_trials_and_plain_processes_score_every_slice(ray_cluster: None, tmp_path: Path) -> None:
    names = write_slices(str(tmp_path), num_slices=3, images_per_slice=1)
    assert len(names) == 3
    assert trials_rate(str(tmp_path), names, 1, "search") > 0
    assert processes_rate(str(tmp_path), names, 1) > 0
