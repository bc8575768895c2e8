"""What the command line of jobs.predict asks for."""

import sys

import pytest

from slams_ray.cli import predict as command
from slams_ray.stages import predict
from slams_ray.stages.predict_settings import PredictSettings


@pytest.mark.parametrize(
    ("arguments", "use_cluster"),
    [
        ([], None),
        (["--cluster", "auto"], None),
        (["--cluster", "always"], True),
        (["--cluster", "never"], False),
    ],
)
def test_the_cluster_is_used_as_asked(
    arguments: list[str], use_cluster: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[PredictSettings] = []
    monkeypatch.setattr(predict, "run", lambda model, images, output, how: asked.append(how))
    given = ["--model", "m", "--images", "i", "--output", "o", "--tile-px", "64", *arguments]
    monkeypatch.setattr(sys, "argv", ["predict", *given])
    command.main()
    (how,) = asked
    assert how.use_cluster is use_cluster
    assert how.tile_px == 64
