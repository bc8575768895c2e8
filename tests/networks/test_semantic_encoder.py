import pytest
import torch

from slams_ray.networks.semantic_encoder import SemanticEncoder


@pytest.fixture
def encoder() -> SemanticEncoder:
    torch.manual_seed(0)
    return SemanticEncoder("tiny_resnet", 8, num_classes=3, embedding_dim=5).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn((2, 3, 32, 40), generator=torch.Generator().manual_seed(1))


def test_embeddings_and_semantics_are_non_negative(
    encoder: SemanticEncoder, images: torch.Tensor
) -> None:
    embedding = encoder(images)
    assert embedding.shape == (2, 4, 5)
    assert embedding.min() >= 0
    assert embedding.max() > 0
    assert encoder.semantics.shape == (4, 5)
    assert encoder.semantics.min() >= 0


def test_similarities_lie_strictly_between_0_and_1(
    encoder: SemanticEncoder, images: torch.Tensor
) -> None:
    similarity = encoder.similarity(images)
    assert similarity.shape == (2, 4)
    assert similarity.min() > 0
    assert similarity.max() < 1


def test_the_embedding_is_the_spatial_sum_of_positive_head_outputs_by_category(
    encoder: SemanticEncoder, images: torch.Tensor
) -> None:
    head = encoder.head(encoder.backbone(images)).clamp(min=0)
    embedding = encoder(images)
    for k in range(4):
        expected = head[:, 5 * k : 5 * k + 5].flatten(2).sum(dim=2)
        torch.testing.assert_close(embedding[:, k], expected)


def test_similarity_does_not_depend_on_the_scale_of_head_or_semantics(
    encoder: SemanticEncoder, images: torch.Tensor
) -> None:
    before = encoder.similarity(images)
    with torch.no_grad():
        encoder.head.weight *= 7
        encoder.semantics_table *= 0.1
    torch.testing.assert_close(encoder.similarity(images), before)


def test_similarity_does_not_depend_on_repeating_the_features(encoder: SemanticEncoder) -> None:
    encoder.backbone = torch.nn.Identity()
    features = torch.rand((1, 64, 2, 3), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        encoder.similarity(features), encoder.similarity(features.repeat(1, 1, 2, 2))
    )
