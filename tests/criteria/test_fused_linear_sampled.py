"""Sampled classes teach, on average, what the whole distribution teaches."""

import itertools
import math

import pytest
import torch
from heads import Allocations, encoded, gradients, Head
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.cache import Sampled
from lightning_distill.criteria import (
    fused_linear_sampled,
    FusedLinearSampled,
    SampleWeighted,
    soft_cross_entropy,
)


def draw(*tokens, vocabulary=11):
    student = torch.randn(*tokens, 8, dtype=torch.float64).requires_grad_()
    return student, torch.randn(*tokens, vocabulary, dtype=torch.float64)


def shares(kept, vocabulary):
    """Of each class, counted one by one."""
    classes, counts = (
        kept[n].reshape(-1, kept[n].shape[-1]).tolist() for n in ("classes", "counts")
    )
    found = torch.zeros(len(classes), vocabulary, dtype=torch.float64)
    for i, pairs in enumerate(zip(classes, counts, strict=True)):
        for c, n in zip(*pairs, strict=True):
            found[i, c] += n / sum(counts[i])
    return found.reshape(*kept["classes"].shape[:-1], vocabulary)


@pytest.mark.parametrize("options", [{}, {"bias": True, "scale": 0.7, "softcap": 2.5}])
@pytest.mark.parametrize("T", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("fused", [True, False])
def test_it_is_its_definition_in_value_and_gradient(T, options, fused):
    student, teacher = draw(3, 5)
    head = Head(8, 11, **options)
    kept = encoded(Sampled(7, T), teacher)
    mask = torch.arange(15).reshape(3, 5) % 4 != 1
    inputs = [x for x in (student, head.weight, head.bias) if x is not None]
    log_q = (head(student) / T).log_softmax(-1)
    expected = -(T**2) * (shares(kept, 11) * log_q).sum(-1)[mask].mean()
    criterion = FusedLinearSampled(7, T, chunk_mb=250 / 2**20, fused=fused)
    found = criterion(student, kept, head, mask)
    assert_close(found, expected, rtol=1e-6, atol=1e-6)
    ours, theirs = (gradients(2 * x, *inputs) for x in (found, expected))
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    vocabulary=st.integers(1, 20),
    draws=st.integers(1, 9),
    chunk=st.integers(1, 3000),
    seed=st.integers(0, 2**31),
)
def test_any_shape_and_any_chunk_agree(shape, vocabulary, draws, chunk, seed):
    torch.manual_seed(seed)
    student, teacher = draw(*shape, vocabulary=vocabulary)
    head, kept = Head(8, vocabulary), encoded(Sampled(draws), teacher)
    values = -(shares(kept, vocabulary) * head(student).log_softmax(-1)).sum(-1)
    close = {"rtol": 1e-6, "atol": 1e-6}
    assert_close(fused_linear_sampled(student, kept, head), values, **close)
    found = FusedLinearSampled(draws, chunk_mb=chunk / 2**20)(student, kept, head)
    assert_close(found, values.mean(), **close)


@pytest.mark.parametrize("T", [0.5, 1.0, 2.0])
def test_over_all_draws_value_and_gradient_are_those_of_the_whole_distribution(T):
    """Every outcome of three draws of four classes, as often as it is drawn: no chance is left."""
    student = torch.randn(1, 3, dtype=torch.float64).requires_grad_()
    teacher = torch.randn(1, 4, dtype=torch.float64)
    head = Head(3, 4, softcap=2.0)
    p = (teacher[0] / T).softmax(-1)
    inputs = student, head.weight
    total, sums = 0.0, [torch.zeros_like(x) for x in inputs]
    for drawn in itertools.product(range(4), repeat=3):
        likely = math.prod(p[c].item() for c in drawn)
        kept = {"classes": torch.tensor([drawn]), "counts": torch.ones(1, 3), "temperature": T}
        loss = FusedLinearSampled(temperature=T)(student, kept, head)
        total += likely * loss
        for x, g in zip(sums, gradients(loss, *inputs), strict=True):
            x += likely * g
    expected = soft_cross_entropy(head(student), teacher, T).mean()
    # Shares of draws are in float32.
    assert_close(total, expected, rtol=1e-6, atol=1e-6)
    assert_close(tuple(sums), gradients(expected, *inputs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("live", [True, False])
def test_draws_of_many_rows_are_of_the_distribution(live):
    """4096 rows of 16 draws of the same distribution: within five standard errors."""
    rows, n, T = 4096, 16, 1.7
    teacher = torch.randn(1, 9, dtype=torch.float64).expand(rows, -1)
    student = torch.randn(1, 8, dtype=torch.float64).expand(rows, -1).clone().requires_grad_()
    head = Head(8, 9)
    given = teacher if live else encoded(Sampled(n, T), teacher)
    loss = FusedLinearSampled(n, T)(student, given, head)
    expected = soft_cross_entropy(head(student), teacher, T).mean()
    (found,), (whole,) = (gradients(x, student) for x in (loss, expected))
    p, log_q = (teacher[0] / T).softmax(-1), (head(student)[0] / T).log_softmax(-1)
    spread = T**2 * ((p * log_q**2).sum() - (p * log_q).sum() ** 2).sqrt()
    assert abs(loss - expected) < 5 * spread / (rows * n) ** 0.5
    # Of the gradient, T (q - p_hat) W: the sum over rows, which are the same.
    W = head.weight.detach()
    covariance = W.T @ (torch.diag(p) - p[:, None] * p) @ W
    bound = 5 * T * covariance.diag().sqrt() / (rows * n) ** 0.5
    assert ((found.sum(0) - whole.sum(0)).abs() < bound).all()


@pytest.mark.parametrize("vocabularies", [(11, 14), (14, 11)])
def test_padded_vocabularies_compare_what_both_have(vocabularies):
    ours, theirs = vocabularies
    student, teacher = draw(20, vocabulary=theirs)
    kept = encoded(Sampled(9), teacher)
    head = Head(8, ours)
    p = shares(kept, theirs)[:, :11]
    assert theirs == 11 or (p.sum(-1) < 1).any()
    p = p / p.sum(-1, keepdim=True)
    expected = -(p * head(student)[:, :11].log_softmax(-1)).sum(-1).mean()
    for fused in (True, False):
        loss = FusedLinearSampled(fused=fused)(student, kept, head)
        assert_close(loss, expected, rtol=1e-6, atol=1e-6)
        found = gradients(loss, student, head.weight)
        whole = torch.autograd.grad(expected, [student, head.weight], retain_graph=True)
        assert_close(found, whole, rtol=1e-5, atol=1e-6)


def test_a_token_of_which_no_draw_is_left_adds_nothing():
    student = torch.randn(2, 8).requires_grad_()
    kept = {"classes": torch.tensor([[12, 13], [1, 12]]), "counts": torch.tensor([[1, 2], [1, 2]])}
    head = Head(8, 11).float()
    for fused in (True, False):
        loss = FusedLinearSampled(fused=fused)(student, kept | {"vocabulary": 14}, head)
        assert_close(loss, -head(student).log_softmax(-1)[1, 1] / 2)
        (found,) = torch.autograd.grad(loss, student)
        assert not found[0].any() and found[1].any()


def test_what_the_student_rules_out_and_was_not_drawn_does_no_harm():
    head = Head(8, 4, bias=True).float()
    head.bias.data = torch.tensor([0.0, -math.inf, 1.0, 2.0])
    student = torch.randn(1, 8).requires_grad_()
    # The second place is empty: its class is one that was drawn, or none.
    kept = {"classes": torch.tensor([[2, 1]]), "counts": torch.tensor([[3, 0]])}
    for fused in (True, False):
        loss = FusedLinearSampled(fused=fused)(student, kept, head)
        assert_close(loss, -head(student).log_softmax(-1)[0, 2])
        assert gradients(loss, student)[0].isfinite().all() or not fused


def test_cross_entropy_may_be_in_the_same_pass():
    student, teacher = draw(4, 5)
    head = Head(8, 11)
    kept = encoded(Sampled(5, 2.0), teacher)
    labels = torch.randint(0, 11, (4, 5)).masked_fill(torch.arange(5) == 2, -100)
    found = []
    for fused in (True, False):
        criterion = FusedLinearSampled(5, 2.0, label_weight=0.4, fused=fused)
        loss = criterion(student, kept, head, labels=labels)
        found.append((loss, *gradients(loss, student, head.weight)))
    assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)
    plain = FusedLinearSampled(5, 2.0)(student, kept, head, labels=labels)
    of_label = torch.nn.functional.cross_entropy(head(student).flatten(0, 1), labels.flatten())
    assert_close(found[0][0], plain + 0.4 * of_label)


def test_values_per_token_are_those_of_the_mean():
    student, teacher = draw(4, 5)
    head, kept = Head(8, 11), encoded(Sampled(5), teacher)
    values = fused_linear_sampled(student, kept, head)
    assert values.shape == (4, 5)
    assert_close(FusedLinearSampled()(student, kept, head), values.mean(), rtol=1e-6, atol=1e-6)


def test_no_logits_of_the_student_are_ever_whole_nor_those_of_the_cache():
    student, teacher = draw(1000, vocabulary=500)
    kept = encoded(Sampled(4), teacher)
    with Allocations() as made:
        FusedLinearSampled(chunk_mb=0.25)(student, kept, Head(8, 500)).backward()
    assert made.largest <= 0.25 * 2**20 / 8 < 1000 * 500 / 8


def test_what_does_not_fit_is_refused_with_words():
    student, teacher = draw(4, 3)
    head, kept = Head(8, 11), encoded(Sampled(3), teacher)
    with pytest.raises(ValueError, match=r"keeps sampled at temperature 1, and .* at 2.*job.temp"):
        FusedLinearSampled(temperature=2.0)(student, kept, head)
    with pytest.raises(ValueError, match=r"were kept as top_k, .* reads sampled.*logits=sampled"):
        FusedLinearSampled()(student, kept | {"kind": "top_k"}, head)
    with pytest.raises(ValueError, match=r"of the same tokens, got .*\(4, 3, 8\).*\(4, 2, 11\)"):
        FusedLinearSampled()(student, teacher[:, :2], head)
    with pytest.raises(ValueError, match="`draws` must be a whole number of at least 1, got 0"):
        FusedLinearSampled(draws=0)
    weighed = SampleWeighted(FusedLinearSampled(3))
    with pytest.raises(ValueError, match=r"FusedLinearSampled cannot be weighed.*SoftCrossEnt"):
        weighed(student, teacher, student_head=head, weight=torch.ones(4))
