"""Semantic encoder: one embedding per class with background, and learnable class semantics."""

import torch
from torch import nn
from torch.nn import functional as F

from slams_ray.networks.backbone import build_backbone
from slams_ray.networks.precision import at_least_float32


class SemanticEncoder(nn.Module):
    """Semantic encoder (docs/method.md, Semantic encoder).

    It has the structure of SemFormer (arXiv 2210.14618) on a CNN.

    Args:
        num_classes: number C of classes without background; K = C + 1, background is index 0.
        embedding_dim: length D of an embedding.
    """

    def __init__(
        self,
        backbone_name: str,
        output_stride: int,
        num_classes: int,
        embedding_dim: int,
        dilate: bool = True,
    ) -> None:
        super().__init__()
        self.num_all_classes = num_classes + 1
        self.embedding_dim = embedding_dim
        self.backbone = build_backbone(backbone_name, output_stride, dilate)
        self.head = nn.Conv2d(
            self.backbone.num_features, self.num_all_classes * embedding_dim, 1, bias=False
        )
        self.semantics_table = nn.Parameter(torch.randn(self.num_all_classes, embedding_dim))

    @property
    def semantics(self) -> torch.Tensor:
        """Class semantics s: (K, D), non-negative."""
        return self.semantics_table.relu()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns class embeddings e, (B, K, D), non-negative, of (B, 3, H, W) images."""
        features = at_least_float32(self.head(self.backbone(images)).relu()).sum(dim=(2, 3))
        return features.view(-1, self.num_all_classes, self.embedding_dim)

    def similarity(self, images: torch.Tensor) -> torch.Tensor:
        """Returns cos(e_k, s_k), (B, K) in (0, 1), of (B, 3, H, W) normalised images."""
        return semantic_similarity(self(images), self.semantics)


SIMILARITY_EPSILON = 1e-4


def semantic_similarity(embedding: torch.Tensor, semantics: torch.Tensor) -> torch.Tensor:
    """Returns cos(e_k, s_k), clamped to [1e-4, 1 - 1e-4] so that its logarithms stay finite.

    Args:
        embedding: (B, K, D) non-negative class embeddings e.
        semantics: (B, K, D) or (K, D) non-negative class semantics s.

    Returns:
        (B, K) float32.
    """
    cosine = F.cosine_similarity(embedding.float(), semantics.float().expand_as(embedding), dim=-1)
    return cosine.clamp(SIMILARITY_EPSILON, 1 - SIMILARITY_EPSILON)
