import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from slams_ray.networks.tiny_resnet import ResidualBlock


@pytest.mark.parametrize(("width", "stride"), [(4, 1), (6, 2)])
def test_a_residual_block_is_that_of_torchvision(width: int, stride: int) -> None:
    shortcuts = [nn.Conv2d(4, width, 1, stride=stride) if stride > 1 else None for _ in range(2)]
    ours = ResidualBlock(4, width, stride, shortcuts[0])
    theirs = BasicBlock(4, width, stride, shortcuts[1])
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn((2, 4, 7, 9), generator=torch.Generator().manual_seed(0))
    inputs = [images.clone().requires_grad_() for _ in range(2)]
    outputs = [block(given) for block, given in zip((ours, theirs), inputs, strict=True)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    assert torch.equal(ours.bn2.running_var, theirs.bn2.running_var)
