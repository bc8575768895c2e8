"""What a step of any training does beside the optimisation."""

import torch

from slams_ray.training.training import seed_generators


def test_seeding_equals_torchs_and_leaves_nothing_behind() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    waiting = len(torch.cuda._queued_calls)
    seed_generators(7)
    assert torch.equal(torch.rand(3), expected)
    assert len(torch.cuda._queued_calls) == waiting
