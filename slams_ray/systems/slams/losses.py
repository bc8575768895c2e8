"""The losses of SLAMs (method: arXiv 2210.12417 v1 abstract; forms: SemFormer 2210.14618, CLIMS).

Every function returns one number per image, shape (B,). Images are averaged by the caller over a
fixed batch size, never over the number of (image, class) pairs: so N workers with B/N images each
take the same step as one worker with B images.
"""

import torch

AREA_EPSILON = 1e-6


def encoder_loss(similarity: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """BCE(sim, y), mean over the K classes. similarity, present: (B, K). Returns (B,)."""
    # Written out, because torch refuses F.binary_cross_entropy under autocast.
    return -torch.where(present.bool(), similarity, 1 - similarity).log().mean(dim=1)


def attract(similarity: torch.Tensor, form: str) -> torch.Tensor:
    """Penalty for not carrying a semantic: 1 - cos, or -log cos in the log form (CLIMS)."""
    return 1 - similarity if form == "cosine" else -similarity.log()


def repel(similarity: torch.Tensor, form: str) -> torch.Tensor:
    """Penalty for carrying a semantic: cos, or -log(1 - cos) in the log form."""
    return similarity if form == "cosine" else -(1 - similarity).log()


def category_foreground_loss(
    similarity: torch.Tensor, own: torch.Tensor, others: torch.Tensor, form: str = "cosine"
) -> torch.Tensor:
    """Correctness, per pair: 1/2 attract(own) + 1/2 mean of repel over the other present classes.

    Args:
        similarity: (N, K) similarity of the image masked by the map of class k, for N (image, k)
            pairs.
        own: (N, K) one-hot bool, the class k of each pair.
        others: (N, K) bool, the classes present in the image (background included) without k.

    Returns:
        (N,).
    """
    return 0.5 * masked_mean(attract(similarity, form), own) + 0.5 * masked_mean(
        repel(similarity, form), others
    )


def category_background_loss(
    similarity: torch.Tensor, own: torch.Tensor, others: torch.Tensor, form: str = "cosine"
) -> torch.Tensor:
    """Per pair: 1/2 repel(own class) + 1/2 mean over the others of attract (completeness).

    Arguments as `category_foreground_loss`, similarity being that of the image masked by the
    complement.
    """
    return 0.5 * masked_mean(repel(similarity, form), own) + 0.5 * masked_mean(
        attract(similarity, form), others
    )


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Row mean of (N, K) values where mask holds; 0 for a row without any."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def activation_regularization(
    activation: torch.Tensor, weight: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Compactness: mean activation over the chosen classes and the pixels that are image.

    Args:
        activation: (B, C, h, w) in [0, 1].
        weight: (B, C) 1 for classes that count: the present ones (SemFormer) or all (CLIMS).
        valid: (B, 1, h, w) 1 on image, 0 on padding.
    """
    area = (activation * valid).sum(dim=(2, 3)) / valid.sum(dim=(2, 3)).clamp(min=AREA_EPSILON)
    return masked_mean(area, weight)


def equivariance_loss(
    transformed_activation: torch.Tensor,
    activation_transformed: torch.Tensor,
    labels: torch.Tensor,
    valid: torch.Tensor,
) -> torch.Tensor:
    """Consistency (i): mean |A(Tx) - T A(x)| over present classes and valid pixels.

    Args:
        transformed_activation: (B, C, h, w) T A(x).
        activation_transformed: (B, C, h, w) A(Tx).
        labels: (B, C) multi-hot.
        valid: (B, 1, h, w).
    """
    difference = (transformed_activation - activation_transformed).abs() * valid
    return masked_mean(
        difference.sum(dim=(2, 3)) / valid.sum(dim=(2, 3)).clamp(min=AREA_EPSILON), labels
    )


def complementation_loss(
    activation: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Consistency (ii), SemFormer: mean (A_k + max_{j != k} A_j - 1)^2 over present k.

    j runs over the other present classes and background, whose map is 1 - max over present classes.
    Arguments as `activation_regularization`; labels: (B, C) multi-hot.
    """
    present = activation * labels[:, :, None, None]
    top, winner = present.max(dim=1, keepdim=True)
    without_top = present.scatter(1, winner, 0.0)
    second = without_top.amax(dim=1, keepdim=True)
    is_top = torch.zeros_like(present, dtype=torch.bool).scatter(1, winner, True)
    rival = torch.maximum(torch.where(is_top, second, top), 1 - top)
    square = (present + rival - 1).square() * valid
    return masked_mean(
        square.sum(dim=(2, 3)) / valid.sum(dim=(2, 3)).clamp(min=AREA_EPSILON), labels
    )
