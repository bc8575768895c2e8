"""Losses of SLAMs. Formulas and their sources: docs/method.md, Activation network.

The category losses return one number per (image, class) pair, the others one per image. The caller
averages over the pairs of an image and then over a fixed batch size, never over all pairs at once.
So N workers with B/N images each take the same step as one worker with B images.
"""

import torch

from slams_ray.systems.maps import mean_over_classes

AREA_EPSILON = 1e-6


def encoder_loss(similarity: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of similarity and presence, mean over the K classes with background.

    Args:
        similarity: (B, K) in (0, 1).
        present: (B, K), 1 for present classes.

    Returns:
        (B,).
    """
    # torch refuses F.binary_cross_entropy under autocast.
    return -torch.where(present.bool(), similarity, 1 - similarity).log().mean(dim=1)


def attract(similarity: torch.Tensor, form: str) -> torch.Tensor:
    """Loss that raises a similarity: 1 - cos, or -log cos in the log form (CLIMS)."""
    return 1 - similarity if form == "cosine" else -similarity.log()


def repel(similarity: torch.Tensor, form: str) -> torch.Tensor:
    """Loss that lowers a similarity: cos, or -log(1 - cos) in the log form (CLIMS)."""
    return similarity if form == "cosine" else -(1 - similarity).log()


def category_foreground_loss(
    similarity: torch.Tensor, own: torch.Tensor, others: torch.Tensor, form: str = "cosine"
) -> torch.Tensor:
    """Correctness: 1/2 attract(own class) + 1/2 mean of repel(other present classes), per pair.

    Args:
        similarity: (N, K) similarities of N masked images, one per (image, class k) pair. Each is
            masked by the map of k.
        own: (N, K) one-hot bool, the class k of each pair.
        others: (N, K) bool, the other classes present in the image, background included.

    Returns:
        (N,).
    """
    return 0.5 * mean_over_classes(attract(similarity, form), own) + 0.5 * mean_over_classes(
        repel(similarity, form), others
    )


def category_background_loss(
    similarity: torch.Tensor, own: torch.Tensor, others: torch.Tensor, form: str = "cosine"
) -> torch.Tensor:
    """Completeness: 1/2 repel(own class) + 1/2 mean of attract(other present classes), per pair.

    Args:
        similarity: (N, K) similarities of images masked by the complement of the map of k.
        own, others: see `category_foreground_loss`.

    Returns:
        (N,).
    """
    return 0.5 * mean_over_classes(repel(similarity, form), own) + 0.5 * mean_over_classes(
        attract(similarity, form), others
    )


def activation_regularization(
    activation: torch.Tensor, weight: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Compactness: mean activation over the chosen classes and the valid pixels, (B,).

    Args:
        activation: (B, C, h, w) in [0, 1].
        weight: (B, C) 1 for the chosen classes: the present ones (ours) or all (CLIMS).
        valid: (B, 1, h, w) 1 on image, 0 on padding.
    """
    area = (activation * valid).sum(dim=(2, 3)) / valid.sum(dim=(2, 3)).clamp(min=AREA_EPSILON)
    return mean_over_classes(area, weight)


def equivariance_loss(
    transformed_activation: torch.Tensor,
    activation_transformed: torch.Tensor,
    labels: torch.Tensor,
    valid: torch.Tensor,
) -> torch.Tensor:
    """Consistency (i): mean |A(Tx) - T A(x)| over present classes and valid pixels, (B,).

    Args:
        transformed_activation: (B, C, h, w) T A(x).
        activation_transformed: (B, C, h, w) A(Tx).
        labels: (B, C) multi-hot.
        valid: (B, 1, h, w) 1 on image, 0 on padding.
    """
    difference = (transformed_activation - activation_transformed).abs() * valid
    return mean_over_classes(
        difference.sum(dim=(2, 3)) / valid.sum(dim=(2, 3)).clamp(min=AREA_EPSILON), labels
    )


def complementation_loss(
    activation: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Consistency (ii), SemFormer: mean (A_k + R_k - 1)^2 over present classes k, (B,).

    R_k is the highest map of the other present classes and of background. The map of background is
    1 minus the maximum over present classes.

    Args:
        activation: (B, C, h, w) in [0, 1].
        labels: (B, C) multi-hot.
        valid: (B, 1, h, w) 1 on image, 0 on padding.
    """
    present = activation * labels[:, :, None, None]
    top, winner = present.max(dim=1, keepdim=True)
    without_top = present.scatter(1, winner, 0.0)
    second = without_top.amax(dim=1, keepdim=True)
    is_top = torch.zeros_like(present, dtype=torch.bool).scatter(1, winner, True)
    rival = torch.maximum(torch.where(is_top, second, top), 1 - top)
    square = (present + rival - 1).square() * valid
    return mean_over_classes(
        square.sum(dim=(2, 3)) / valid.sum(dim=(2, 3)).clamp(min=AREA_EPSILON), labels
    )
