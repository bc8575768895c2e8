import numpy as np
import pytest
import torch
from torch.nn import functional as F

from slams_ray.networks.semantic_encoder import SIMILARITY_EPSILON, semantic_similarity
from slams_ray.systems.classification import classifier_loss
from slams_ray.systems.slams import losses

FORMS = ("cosine", "log")


def random_pairs(
    seed: int, num_pairs: int = 6, num_all_classes: int = 5
) -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(seed)
    similarity = torch.from_numpy(rng.uniform(0.05, 0.95, (num_pairs, num_all_classes)))
    own_class = torch.from_numpy(rng.integers(1, num_all_classes, num_pairs))
    own = F.one_hot(own_class, num_all_classes).bool()
    present = torch.from_numpy(rng.random((num_pairs, num_all_classes)) < 0.5) | own
    present[:, 0] = True
    return similarity, own, present & ~own


def naive_pair_loss(
    similarity: torch.Tensor, own: torch.Tensor, others: torch.Tensor, form: str, swapped: bool
) -> list[float]:
    def attract(cosine: float) -> float:
        return 1 - cosine if form == "cosine" else -np.log(cosine)

    def repel(cosine: float) -> float:
        return cosine if form == "cosine" else -np.log(1 - cosine)

    on_own, on_others = (repel, attract) if swapped else (attract, repel)
    result = []
    for row, own_row, other_row in zip(similarity.tolist(), own, others, strict=True):
        own_index = own_row.nonzero().item()
        rest = [on_others(row[j]) for j in other_row.nonzero().flatten().tolist()]
        result.append(0.5 * on_own(row[own_index]) + 0.5 * sum(rest) / max(len(rest), 1))
    return result


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("swapped", [False, True])
def test_category_losses_equal_a_loop_over_pairs_and_classes(form: str, swapped: bool) -> None:
    function = losses.category_background_loss if swapped else losses.category_foreground_loss
    for seed in range(3):
        similarity, own, others = random_pairs(seed)
        expected = naive_pair_loss(similarity, own, others, form, swapped)
        assert function(similarity, own, others, form).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("form", FORMS)
def test_category_losses_have_the_gradient_of_finite_differences(form: str) -> None:
    similarity, own, others = random_pairs(0)
    similarity.requires_grad_()
    for function in (losses.category_foreground_loss, losses.category_background_loss):
        assert torch.autograd.gradcheck(lambda s, f=function: f(s, own, others, form), similarity)


def test_category_losses_in_cosine_form_lie_between_0_and_1() -> None:
    _, own, others = random_pairs(1)
    others[:, 0] = True
    best, worst = own.double(), (~own).double()
    assert losses.category_foreground_loss(best, own, others).tolist() == [0.0] * len(own)
    assert losses.category_foreground_loss(worst, own, others).tolist() == [1.0] * len(own)
    assert losses.category_background_loss(worst, own, others).tolist() == [0.0] * len(own)
    assert losses.category_background_loss(best, own, others).tolist() == [1.0] * len(own)


def test_a_pair_without_other_classes_pays_only_for_its_own() -> None:
    own = torch.tensor([[False, True]])
    loss = losses.category_foreground_loss(torch.tensor([[0.9, 0.3]]), own, torch.zeros_like(own))
    assert loss.item() == pytest.approx(0.35)


def test_semantic_similarity_equals_the_cosine_of_every_pair() -> None:
    rng = np.random.default_rng(0)
    embedding, semantics = rng.random((3, 4, 5)), rng.random((4, 5))
    similarity = semantic_similarity(torch.from_numpy(embedding), torch.from_numpy(semantics))
    for b in range(3):
        for k in range(4):
            norms = np.linalg.norm(embedding[b, k]) * np.linalg.norm(semantics[k])
            expected = embedding[b, k] @ semantics[k] / norms
            assert similarity[b, k].item() == pytest.approx(expected, rel=1e-5)


def test_semantic_similarity_is_clamped_inside_0_and_1_even_for_a_dead_class() -> None:
    embedding = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    semantics = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    epsilon = SIMILARITY_EPSILON
    found = semantic_similarity(embedding, semantics)[0].tolist()
    assert found == pytest.approx([epsilon, 1 - epsilon, epsilon])


def test_semantic_similarity_has_the_gradient_of_the_cosine_formula() -> None:
    rng = np.random.default_rng(1)
    embedding = torch.from_numpy(rng.random((2, 3, 4)) + 0.1).requires_grad_()
    semantics = torch.from_numpy(rng.random((3, 4)) + 0.1).requires_grad_()
    exact = (embedding * semantics).sum(-1) / (embedding.norm(dim=-1) * semantics.norm(dim=-1))
    expected = torch.autograd.grad(exact.sum(), (embedding, semantics))
    similarity = semantic_similarity(embedding, semantics)
    found = torch.autograd.grad(similarity.sum(), (embedding, semantics))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_encoder_loss_equals_binary_cross_entropy_per_image() -> None:
    rng = np.random.default_rng(2)
    similarity, present = rng.uniform(0.05, 0.95, (4, 6)), rng.random((4, 6)) < 0.5
    expected = [
        np.mean([-np.log(s) if y else -np.log(1 - s) for s, y in zip(*row, strict=True)])
        for row in zip(similarity, present, strict=True)
    ]
    found = losses.encoder_loss(torch.from_numpy(similarity).float(), torch.from_numpy(present))
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_encoder_loss_has_the_gradient_of_finite_differences() -> None:
    rng = np.random.default_rng(8)
    similarity = torch.from_numpy(rng.uniform(0.05, 0.95, (4, 6))).requires_grad_()
    present = torch.from_numpy(rng.random((4, 6)) < 0.5)
    assert torch.autograd.gradcheck(lambda s: losses.encoder_loss(s, present), similarity)


def test_classifier_loss_and_gradient_equal_those_of_the_sigmoid_cross_entropy() -> None:
    rng = np.random.default_rng(3)
    scores = torch.from_numpy(rng.normal(0, 2, (4, 6))).requires_grad_()
    labels = torch.from_numpy(rng.integers(0, 2, (4, 6)))
    probability = scores.detach().sigmoid()
    expected = -torch.where(labels == 1, probability, 1 - probability).log().mean(dim=1)
    loss = classifier_loss(scores, labels)
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-5)
    loss.sum().backward()
    torch.testing.assert_close(scores.grad, (probability - labels) / 6, atol=1e-6, rtol=1e-5)
