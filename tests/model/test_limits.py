"""Limits of photographs are checked before anything is computed."""

from dataclasses import fields

import pytest
from PIL import Image

from slams_ray.cli.predict import PredictCommand
from slams_ray.data.image import ImageLimits
from slams_ray.errors import ConfigError
from slams_ray.model.limits import MAX_PIXELS, photograph_limits
from slams_ray.stages.predict_settings import PredictSettings


def test_the_file_size_follows_from_the_pixels() -> None:
    assert photograph_limits(64_000_000).max_bytes == 256_000_000
    assert photograph_limits(1).max_bytes == ImageLimits.max_bytes
    assert photograph_limits(MAX_PIXELS).max_pixels == 178_956_970
    assert Image.MAX_IMAGE_PIXELS is not None
    assert 2 * Image.MAX_IMAGE_PIXELS == MAX_PIXELS


def test_the_command_line_and_the_job_have_one_default() -> None:
    (option,) = (f for f in fields(PredictCommand) if f.name == "max_image_pixels")
    assert option.default == PredictSettings().max_image_pixels


def test_settings_that_no_photograph_can_be_read_with_are_refused() -> None:
    for pixels in (0, MAX_PIXELS + 1):
        with pytest.raises(ConfigError, match=f"max_image_pixels is {pixels}, expected in 1"):
            PredictSettings(max_image_pixels=pixels)
    with pytest.raises(ConfigError, match="tile_px is 200, expected a multiple of 32"):
        PredictSettings(tile_px=200)
