"""A convolution that applies the frozen BatchNorm after it computes and learns the same."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from slams_ray.networks.backbone import (
    Backbone,
    build_backbone,
    freeze_batch_norm,
    freeze_blocks,
)
from slams_ray.networks.batch_norm import fold_batch_norm
from slams_ray.networks.frozen_batch_norm import (
    NormalisedConv2d,
    merge_frozen_batch_norm,
    merged_once,
)


def make_frozen(name: str = "tiny_resnet") -> Backbone:
    torch.manual_seed(0)
    backbone = build_backbone(name, 8)
    for child in backbone.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.normal_(child.running_mean, std=0.1)
            nn.init.uniform_(child.running_var, 0.5, 1.5)
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias, std=0.1)
    backbone.train()
    freeze_batch_norm(backbone)
    # In float64 no pre-activation is within rounding of 0, where a ReLU could change its side.
    return backbone.double()


def outcome(backbone: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    features = backbone(images)
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    return features, list(torch.autograd.grad(features.square().mean(), parameters))


@pytest.mark.parametrize("name", ["tiny_resnet", "mobilenet_v2", "resnet18", "resnet50"])
def test_features_and_all_gradients_stay(name: str) -> None:
    backbone = make_frozen(name)
    images = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    features, gradients = outcome(backbone, images)
    state = copy.deepcopy(backbone.state_dict())
    merge_frozen_batch_norm(backbone)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    found, found_gradients = outcome(backbone, images)
    torch.testing.assert_close(found, features, atol=1e-10, rtol=1e-10)
    for expected, value in zip(gradients, found_gradients, strict=True):
        assert expected.abs().max() > 0
        scale = expected.abs().max()
        torch.testing.assert_close(value / scale, expected / scale, atol=1e-9, rtol=1e-9)
    assert list(backbone.state_dict()) == list(state)
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_a_bias_of_the_convolution_is_scaled_too() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.running_mean)
    nn.init.normal_(norm.weight)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), norm).eval()
    images = torch.randn(2, 3, 8, 8)
    expected = module(images)
    merge_frozen_batch_norm(module)
    torch.testing.assert_close(module(images), expected, atol=1e-5, rtol=1e-5)


def test_loaded_weights_copies_and_folded_networks_are_right() -> None:
    source, target = make_frozen(), make_frozen()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.mul_(1.1)
    images = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    expected = source(images)
    merge_frozen_batch_norm(target)
    target.load_state_dict(source.state_dict())
    copied = copy.deepcopy(target)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    torch.testing.assert_close(copied(images), expected)
    torch.testing.assert_close(fold_batch_norm(copied.eval())(images), expected)
    assert any(isinstance(m, NormalisedConv2d) for m in copied.modules())


SIZES = (40, 32)


def learn_from_sizes(backbone: nn.Module) -> list[torch.Tensor]:
    """Returns the gradients of a loss of two passes, as multi-scale trainings have it."""
    torch.manual_seed(1)
    dtype = next(backbone.parameters()).dtype
    passes = [backbone(torch.randn(2, 3, size, size, dtype=dtype)) for size in SIZES]
    loss = torch.stack([features.float().square().mean() for features in passes]).sum()
    return list(torch.autograd.grad(loss, [p for p in backbone.parameters() if p.requires_grad]))


@pytest.mark.parametrize("frozen_blocks", [0, 2])
@pytest.mark.parametrize("name", ["tiny_resnet", "mobilenet_v2"])
def test_passes_that_share_filters_learn_the_same(name: str, frozen_blocks: int) -> None:
    backbone = make_frozen(name)
    freeze_blocks(backbone, frozen_blocks)
    expected = learn_from_sizes(backbone)
    merge_frozen_batch_norm(backbone)
    for _ in range(2):
        with merged_once(backbone):
            found = learn_from_sizes(backbone)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)


def test_frozen_blocks_beside_learning_ones_need_no_gradients() -> None:
    backbone = make_frozen("mobilenet_v2")
    freeze_blocks(backbone, 3)
    merge_frozen_batch_norm(backbone)
    convolutions = [m for m in backbone.modules() if isinstance(m, NormalisedConv2d)]
    with merged_once(backbone):
        for convolution in convolutions:
            assert convolution.shared is not None
            for part in (convolution.shared.filters, convolution.shared.shift):
                assert part.requires_grad is convolution.weight.requires_grad
    assert {c.weight.requires_grad for c in convolutions} == {False, True}


def test_a_pass_with_other_parameters_scales_their_filters() -> None:
    backbone = make_frozen()
    images = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    merge_frozen_batch_norm(backbone)
    others = {name: 1.1 * value.detach() for name, value in backbone.named_parameters()}
    expected = functional_call(backbone, others, (images,))
    with merged_once(backbone):
        found = functional_call(backbone, others, (images,))
        own = backbone(images)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert not torch.equal(own, found)


def test_norms_with_another_epsilon_keep_it() -> None:
    backbone = make_frozen()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    norms[1].eps = 0.5
    expected = learn_from_sizes(backbone)
    merge_frozen_batch_norm(backbone)
    with merged_once(backbone):
        for ours, theirs in zip(learn_from_sizes(backbone), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)


def test_nothing_is_shared_after_a_pass_that_failed() -> None:
    backbone = make_frozen()
    merge_frozen_batch_norm(backbone)
    with pytest.raises(RuntimeError, match="channels"), merged_once(backbone):
        backbone(torch.zeros(1, 4, 8, 8, dtype=torch.float64))
    for module in backbone.modules():
        assert getattr(module, "shared", None) is None


class Operations(TorchDispatchMode):
    """Counts operations that compute, not views. On a GPU each starts at least one kernel."""

    number = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        is_view = function.is_view or function._schema.name.startswith("aten::empty")
        self.number += not is_view
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("is_mixed", [False, True])
def test_two_passes_need_fewer_operations_than_with_batch_norm(is_mixed: bool) -> None:
    backbone = make_frozen("resnet50").float()
    counts = []
    for is_merged in (False, True):
        if is_merged:
            merge_frozen_batch_norm(backbone)
        with (
            Operations() as operations,
            torch.autocast("cpu", torch.bfloat16, enabled=is_mixed),
            merged_once(backbone),
        ):
            learn_from_sizes(backbone)
        counts.append(operations.number)
    assert counts[1] < counts[0]
