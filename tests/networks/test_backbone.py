from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models
from torchvision.models import mobilenet_v2

from slams_ray.errors import ConfigError
from slams_ray.networks.backbone import (
    BACKBONES,
    Backbone,
    build_backbone,
    freeze_batch_norm,
    freeze_blocks,
)
from slams_ray.networks.weights import load_backbone_weights


def random_images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def build_seeded(name: str, output_stride: int) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(name, output_stride).eval()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "resnet50"])
@torch.inference_mode()
def test_a_dilated_network_computes_the_strided_features_on_a_finer_grid(name: str) -> None:
    images = random_images(1, 3, 64, 96)
    strided = build_seeded(name, 32)
    expected = strided(images)
    assert expected.shape == (1, strided.num_features, 2, 3)
    for output_stride in (16, 8):
        dilated = build_seeded(name, output_stride)
        dilated.load_state_dict(strided.state_dict())
        features = dilated(images)
        step = 32 // output_stride
        assert features.shape == (1, strided.num_features, 2 * step, 3 * step)
        found = features[..., ::step, ::step]
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@torch.inference_mode()
def test_without_dilation_the_last_stage_of_a_resnet_only_loses_its_stride() -> None:
    torch.manual_seed(0)
    published = torchvision_models.resnet18(weights=None).eval()
    published.layer4[0].conv1.stride = published.layer4[0].downsample[0].stride = (1, 1)
    published.avgpool = published.fc = nn.Identity()
    backbone = build_backbone("resnet18", 16, dilate=False).eval()
    backbone.load_state_dict({f"body.{k}": v for k, v in published.state_dict().items()})
    images = random_images(1, 3, 64, 96)
    features = backbone(images)
    assert features.shape == (1, 512, 4, 6)
    torch.testing.assert_close(features.flatten(1), published(images))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_dilation_changes_no_weight_and_no_stride(name: str) -> None:
    with torch.device("meta"):
        dilated, plain = (build_backbone(name, 8, dilate) for dilate in (True, False))
        sizes = [tuple(f.shape) for f in dilated.depths(torch.empty(1, 3, 49, 63))]
        assert sizes == [tuple(f.shape) for f in plain.depths(torch.empty(1, 3, 49, 63))]
    assert {k: v.shape for k, v in dilated.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    largest = [
        max(m.dilation[0] for m in backbone.modules() if isinstance(m, nn.Conv2d))
        for backbone in (dilated, plain)
    ]
    assert largest == [4, 1]


@pytest.mark.parametrize("output_stride", [4, 8])
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_tiny_resnet_has_its_stride_rounded_up(output_stride: int, size: tuple[int, int]) -> None:
    backbone = build_seeded("tiny_resnet", output_stride)
    features = backbone(random_images(2, 3, *size))
    expected = [-(-side // output_stride) for side in size]
    assert list(features.shape) == [2, backbone.num_features, *expected]


def test_an_unknown_backbone_raises_and_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"vgg16.*tiny_resnet"):
        build_backbone("vgg16", 16)


@pytest.mark.parametrize(("name", "output_stride"), [("resnet18", 4), ("tiny_resnet", 16)])
def test_an_impossible_output_stride_raises(name: str, output_stride: int) -> None:
    with pytest.raises(ConfigError, match=f"stride.*{output_stride}"):
        build_backbone(name, output_stride)


def save(state: object, directory: Path) -> str:
    path = directory / "weights.pth"
    torch.save(state, path)
    return str(path)


def test_a_state_dict_of_the_same_architecture_is_loaded(tmp_path: Path) -> None:
    source = build_backbone("tiny_resnet", 8)
    target = build_backbone("tiny_resnet", 4)
    load_backbone_weights(target, save(source.body.state_dict(), tmp_path))
    for name, value in source.body.state_dict().items():
        assert torch.equal(target.body.state_dict()[name], value), name


def test_a_torchvision_state_dict_loads_and_its_classifier_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = mobilenet_v2().eval()
    backbone = build_backbone("mobilenet_v2", 32).eval()
    load_backbone_weights(backbone, save(network.state_dict(), tmp_path))
    images = random_images(1, 3, 32, 32)
    assert torch.equal(backbone(images), network.features(images))


def test_no_weights_leave_the_network_as_it_is() -> None:
    backbone = build_backbone("tiny_resnet", 8)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    load_backbone_weights(backbone, "none")
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_weights_of_another_architecture_raise_and_name_a_tensor(tmp_path: Path) -> None:
    path = save({"conv1.weight": torch.zeros(1)}, tmp_path)
    with pytest.raises(ConfigError, match=r"another architecture.*0\.0\.weight"):
        load_backbone_weights(build_backbone("tiny_resnet", 8), path)


def test_a_tensor_of_another_shape_raises_and_is_named(tmp_path: Path) -> None:
    backbone = build_backbone("tiny_resnet", 8)
    state = dict(backbone.body.state_dict())
    state["0.0.weight"] = torch.zeros(16, 1, 3, 3)
    with pytest.raises(ConfigError, match=r"another shape \(first: \['0\.0\.weight'\]\)"):
        load_backbone_weights(backbone, save(state, tmp_path))


def test_a_missing_weights_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a file"):
        load_backbone_weights(build_backbone("tiny_resnet", 8), str(tmp_path / "absent.pth"))


def test_a_truncated_weights_file_raises(tmp_path: Path) -> None:
    backbone = build_backbone("tiny_resnet", 8)
    path = Path(save(backbone.body.state_dict(), tmp_path))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="cannot be read"):
        load_backbone_weights(backbone, str(path))


def test_a_file_that_is_not_a_state_dict_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a state dict"):
        load_backbone_weights(build_backbone("tiny_resnet", 8), save([1, 2], tmp_path))


def running_statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items() if "running" in k}


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batch_norm_keeps_its_statistics_while_its_weights_train(frozen: bool) -> None:
    backbone = build_backbone("tiny_resnet", 8).train()
    if frozen:
        freeze_batch_norm(backbone)
    before = running_statistics(backbone)
    weight_before = backbone.body[0][1].weight.clone()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    backbone(random_images(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    after = running_statistics(backbone)
    assert all(torch.equal(after[k], v) for k, v in before.items()) is frozen
    assert not torch.equal(backbone.body[0][1].weight, weight_before)


@pytest.mark.parametrize(
    ("name", "num_blocks", "last_frozen", "first_trained"),
    [
        ("mobilenet_v2", 7, "features.6.", "features.7."),
        ("resnet18", 5, "layer1.", "layer2."),
        ("tiny_resnet", 1, "0.", "1."),
    ],
)
def test_frozen_blocks_are_the_leading_ones(
    name: str, num_blocks: int, last_frozen: str, first_trained: str
) -> None:
    backbone = build_backbone(name, 8)
    freeze_blocks(backbone, num_blocks)
    trained = {n for n, p in backbone.body.named_parameters() if p.requires_grad}
    assert not any(n.startswith(last_frozen) for n in trained)
    assert any(n.startswith(first_trained) for n in trained)


def test_more_frozen_blocks_than_there_are_raise() -> None:
    with pytest.raises(ConfigError, match="frozen_blocks is 9, but the backbone has 4"):
        freeze_blocks(build_backbone("tiny_resnet", 8), 9)


def strides_of(name: str) -> tuple[int, ...]:
    return (4, 8) if name == "tiny_resnet" else (8, 16, 32)


CASES = [(name, stride) for name in BACKBONES for stride in strides_of(name)]


@pytest.mark.parametrize(("name", "output_stride"), CASES)
def test_every_depth_has_its_declared_channels_and_stride(name: str, output_stride: int) -> None:
    height, width = 49, 63
    with torch.device("meta"):
        backbone = build_backbone(name, output_stride)
        depths = backbone.depths(torch.empty(2, 3, height, width))
    assert len(depths) == len(backbone.taps) > 1
    for features, tap in zip(depths, backbone.taps, strict=True):
        size = (-(-height // tap.stride), -(-width // tap.stride))
        assert features.shape == (2, tap.num_features, *size)
    assert [tap.stride for tap in backbone.taps] == sorted(tap.stride for tap in backbone.taps)
    assert backbone.taps[-1].stride == output_stride


@pytest.mark.parametrize("name", ["tiny_resnet", "mobilenet_v2", "resnet18"])
@torch.inference_mode()
def test_depths_lie_on_the_way_to_the_default_output(name: str) -> None:
    backbone = build_seeded(name, 8)
    images = random_images(1, 3, 32, 32)
    expected = backbone(images)
    for features, tap in zip(backbone.depths(images), backbone.taps, strict=True):
        for block in backbone.blocks[tap.block + 1 :]:
            features = block(features)
        assert torch.equal(features, expected)


@pytest.mark.parametrize("name", [n for n in BACKBONES if n != "tiny_resnet"])
def test_state_dict_keys_are_those_of_torchvision(name: str) -> None:
    with torch.device("meta"):
        own = set(build_backbone(name, 16).body.state_dict())
        published = getattr(torchvision_models, name)(weights=None).state_dict()
    assert own == {key for key in published if not key.startswith(("fc.", "classifier."))}


def test_weights_that_cannot_be_downloaded_name_the_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(ConfigError, match=r"backbone\.weights MobileNet_V2.*Give a file"):
        load_backbone_weights(
            build_backbone("mobilenet_v2", 16), "MobileNet_V2_Weights.IMAGENET1K_V1"
        )


@pytest.mark.parametrize("name", ["ResNet51_Weights.IMAGENET1K_V1", "ResNet50_Weights.V3"])
def test_weights_that_torchvision_does_not_have_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}', which torchvision does not have"):
        load_backbone_weights(build_backbone("resnet50", 16), name)
