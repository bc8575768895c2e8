"""Convolutions computed in faster ways give the same numbers, and are used where they pay."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.batch_norm import fold_batch_norm
from slams_ray.networks.cpu_convolutions import FastConv2d, use_fast_convolutions
from slams_ray.networks.segmentation_network import SegmentationNetwork

ONEDNN, OTHER = "aten::mkldnn_convolution", "aten::_slow_conv2d_forward"
DILATED = "aten::slow_conv_dilated2d"
Gradients = dict[str, torch.Tensor]


@pytest.fixture
def one_thread() -> Iterator[None]:
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


def operations(network: nn.Module, images: torch.Tensor) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as found, torch.inference_mode():
        network(images)
    return {event.key for event in found.key_averages()}


def made_fast(layer: nn.Module) -> nn.Module:
    """Returns a copy of a layer that computes in the fast way."""
    fast = nn.Sequential(copy.deepcopy(layer))
    use_fast_convolutions(fast)
    return fast[0]


@pytest.mark.usefixtures("one_thread")
def test_pointwise_convolutions_of_few_images_are_computed_by_onednn() -> None:
    torch.manual_seed(0)
    network = fold_batch_norm(ActivationNetwork("mobilenet_v2", 16, 3).eval())
    images = torch.randn(2, 3, 48, 64).to(memory_format=torch.channels_last)
    # Where torch no longer has another way, there is nothing to avoid.
    assert OTHER in operations(network, images)
    fast = made_fast(network)
    assert operations(fast, images) & {ONEDNN, OTHER} == {ONEDNN}
    with torch.inference_mode():
        expected, found = network(images), fast(images)
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("number", "side"), [(1, 4), (1, 160), (2, 4)])
@pytest.mark.parametrize("has_onednn", [True, False])
@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
@pytest.mark.usefixtures("one_thread")
def test_pointwise_convolutions_are_never_computed_as_dilated_ones(
    number: int, side: int, has_onednn: bool, dtype: torch.dtype, stride: int
) -> None:
    """Torch's own dilated convolution takes several times as long as any other."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 1, stride=stride).to(dtype)
    images = torch.randn(number, 3, side, side, dtype=dtype)
    fast = made_fast(layer)
    assert isinstance(fast, FastConv2d)
    with torch.backends.mkldnn.flags(enabled=has_onednn):
        assert DILATED not in operations(fast, images)
        torch.testing.assert_close(fast(images), layer(images))


def gradients(layer: nn.Module, features: torch.Tensor) -> tuple[torch.Tensor, Gradients]:
    """Output, and gradients of a loss that treats all pixels in different ways."""
    own = features.clone().requires_grad_(features.requires_grad)
    output = layer(own)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(own.dtype)
    learnt = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    if own.requires_grad:
        learnt["features"] = own
    found = torch.autograd.grad((output * weights).sum(), list(learnt.values()))
    return output, dict(zip(learnt, found, strict=True))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("rows", "columns"), [(8, 12), (7, 5), (3, 1)])
@pytest.mark.parametrize("rate", [2, 3, 6])
@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "bias"),
    [(6, 6, 6, True), (6, 6, 6, False), (6, 4, 1, True), (6, 1, 1, False), (1, 4, 1, True)],
    ids=["depthwise", "depthwise-without-bias", "dense", "one-output", "one-input"],
)
def test_fast_gradients_are_those_of_torch(
    inputs: int,
    outputs: int,
    groups: int,
    bias: bool,
    rate: int,
    rows: int,
    columns: int,
    layout: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(
        inputs, outputs, 3, padding=rate, dilation=rate, groups=groups, bias=bias
    ).double()
    fast = made_fast(plain)
    assert isinstance(fast, FastConv2d)
    features = torch.randn(2, inputs, rows, columns, dtype=torch.float64, requires_grad=True)
    features = features.detach().to(memory_format=layout).requires_grad_()
    expected_output, expected = gradients(plain, features)
    output, found = gradients(fast, features)
    torch.testing.assert_close(output, expected_output)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("rows", "columns"), [(8, 12), (7, 5), (1, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_fast_gradients_of_strided_convolutions_are_those_of_torch(
    bias: bool, rows: int, columns: int, layout: torch.memory_format
) -> None:
    """bfloat16 holds small whole numbers exactly, so that nothing is rounded."""
    generator = torch.Generator().manual_seed(0)

    def whole(*shape: int) -> torch.Tensor:
        return torch.randint(-1, 2, shape, generator=generator).float()

    plain = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6, bias=bias)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.copy_(whole(*parameter.shape))
    features = whole(2, 6, rows, columns)
    of_output = whole(*plain(features).shape)
    found = []
    for layer, dtype in ((made_fast(plain), torch.bfloat16), (plain, torch.float32)):
        layer.to(dtype)
        own = features.to(dtype, memory_format=layout).requires_grad_()
        output = layer(own)
        output.backward(of_output.to(dtype))
        found.append([output, own.grad, *(p.grad for p in layer.parameters())])
        assert (type(output.grad_fn).__name__ == "_StridedBackward") is (layer is not plain)
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours.float(), theirs)


@pytest.mark.parametrize(
    "layer",
    [
        # Its filters' gradient of torch 2.15 is wrong in bfloat16 on maps of this size.
        nn.Conv2d(960, 960, 3, padding=2, dilation=2, groups=960),
        nn.Conv2d(40, 5, 3, padding=6, dilation=6),
        nn.Conv2d(96, 96, 3, padding=1, stride=2, groups=96, bias=False),
        nn.Conv2d(40, 24, 1),
    ],
    ids=["dilated-depthwise", "dilated-dense", "strided", "pointwise"],
)
def test_layers_learn_in_autocast_what_exact_ones_do(layer: nn.Conv2d) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter.bfloat16())
    features = torch.randn(2, layer.in_channels, 33, 33).bfloat16().float()
    fast, exact = made_fast(layer), copy.deepcopy(layer).double()
    found = []
    for trained, dtype in ((fast, torch.float32), (exact, torch.float64)):
        own = features.to(dtype, memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=trained is fast):
            output = trained(own)
        assert output.dtype == (torch.bfloat16 if trained is fast else dtype)
        (output * features.sum() + output.square()).to(dtype).mean().backward()
        gradients_of = [own.grad, *(p.grad for p in trained.parameters())]
        assert {gradient.dtype for gradient in gradients_of} == {dtype}
        found.append([output, *gradients_of])
    for ours, expected in zip(*found, strict=True):
        assert (ours - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("part", ["features", "weight"])
def test_only_the_gradients_of_what_learns_are_computed(part: str, groups: int) -> None:
    layer = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=groups).requires_grad_(False)
    features = torch.randn(1, 4, 6, 6)
    learnt = features if part == "features" else layer.weight
    learnt.requires_grad_()
    output = made_fast(layer)(features)
    assert output.grad_fn is not None
    computed: list[bool] = []
    output.grad_fn.register_hook(
        lambda found, _: computed.extend(value is not None for value in found)
    )
    output.sum().backward()
    assert computed == [part == "features", part == "weight", False]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.usefixtures("one_thread")
def test_gradients_of_pointwise_convolutions_are_those_of_torch(stride: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 5, 1, stride=stride)
    features = torch.randn(2, 8, 12, 10).to(memory_format=torch.channels_last).requires_grad_()
    expected_output, expected = gradients(layer, features)
    output, found = gradients(made_fast(layer), features)
    torch.testing.assert_close(output, expected_output)
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning")
@pytest.mark.usefixtures("one_thread")
def test_a_trace_suits_any_number_of_images() -> None:
    """ONNX files are made of a trace."""
    traced = torch.jit.trace(made_fast(nn.Conv2d(3, 5, 1)), torch.randn(2, 3, 4, 4))
    assert operations(traced, torch.randn(1, 3, 4, 4)) & {OTHER, DILATED} == {OTHER}


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), True),
        (nn.Conv2d(64, 21, 3, padding=6, dilation=6), True),
        (nn.Conv2d(64, 256, 3, padding=6, dilation=6), False),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), False),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8, stride=2), True),
        (nn.Conv2d(8, 16, 3, padding=1, groups=8, stride=2), False),
        (nn.Conv2d(8, 8, 3, padding=1, stride=2), False),
        (nn.Conv2d(8, 8, 3, groups=8, stride=2), False),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8, stride=3), False),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8, stride=(1, 2)), False),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, stride=2), False),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2), False),
        (nn.Conv2d(8, 8, 3, padding=1, dilation=2, groups=8), False),
        (nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=8), False),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, padding_mode="circular"), False),
        (nn.Conv2d(8, 8, 1, groups=8), False),
        (nn.Conv2d(8, 8, 1, padding=1), False),
        (nn.Conv2d(8, 8, 1), True),
    ],
)
def test_only_slow_convolutions_change(layer: nn.Conv2d, expected: bool) -> None:
    assert isinstance(made_fast(layer), FastConv2d) is expected


@pytest.mark.parametrize(
    "build",
    [
        lambda: ActivationNetwork("mobilenet_v2", 8, 3),
        lambda: SegmentationNetwork("tiny_resnet", 4, 3, "deeplabv2"),
    ],
    ids=["depthwise", "head"],
)
def test_a_network_keeps_its_names_and_its_gradients(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = fold_batch_norm(build().eval()).double()
    fast = made_fast(network)
    assert any(isinstance(layer, FastConv2d) for layer in fast.modules())
    assert list(fast.state_dict()) == list(network.state_dict())
    images = torch.randn(2, 3, 40, 48, dtype=torch.float64, requires_grad=True)
    expected_output, expected = gradients(network, images)
    output, found = gradients(fast, images)
    torch.testing.assert_close(output, expected_output)
    torch.testing.assert_close(found, expected)
