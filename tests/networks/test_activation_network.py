import torch

from slams_ray.networks.activation_network import ActivationNetwork, classification_scores


def build(num_classes: int = 3) -> ActivationNetwork:
    torch.manual_seed(0)
    return ActivationNetwork("tiny_resnet", 8, num_classes).eval()


def random_tensor(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_maps_have_one_channel_per_class_at_the_output_stride() -> None:
    assert build()(random_tensor(2, 3, 32, 40)).shape == (2, 3, 4, 5)


def test_the_mean_of_the_maps_is_the_classifier_on_pooled_features() -> None:
    network, images = build(), random_tensor(2, 3, 32, 40)
    pooled = network.backbone(images).mean(dim=(2, 3))
    expected = pooled @ network.head.weight[:, :, 0, 0].T
    torch.testing.assert_close(classification_scores(network(images)), expected)


def test_scores_average_only_over_what_is_image() -> None:
    logits = random_tensor(2, 3, 4, 5)
    valid = torch.zeros((2, 1, 4, 5))
    valid[0, :, :2, :3] = 1
    valid[1, :, 1:, 1:] = 1
    scores = classification_scores(logits, valid)
    torch.testing.assert_close(scores[0], logits[0, :, :2, :3].mean(dim=(1, 2)))
    torch.testing.assert_close(scores[1], logits[1, :, 1:, 1:].mean(dim=(1, 2)))


def test_scores_of_an_image_thinner_than_a_cell_are_still_the_mean() -> None:
    logits, valid = random_tensor(1, 2, 3, 3), torch.zeros((1, 1, 3, 3))
    valid[..., 1, 1] = 0.125
    torch.testing.assert_close(classification_scores(logits, valid)[0], logits[0, :, 1, 1])


def test_scores_of_pure_padding_are_0() -> None:
    scores = classification_scores(random_tensor(1, 2, 3, 3), torch.zeros((1, 1, 3, 3)))
    assert scores.tolist() == [[0, 0]]
