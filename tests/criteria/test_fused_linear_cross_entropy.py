"""The fused cross-entropy is the plain one, in value and gradient, and is never whole in memory."""

import pytest
import torch
import torch.nn.functional as F
from heads import Allocations, gradients, Head
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.criteria import (
    fused_linear_cross_entropy,
    FusedLinearCrossEntropy,
    SampleWeighted,
)


def draw(*tokens, width=8, vocabulary=11):
    labels = torch.randint(0, vocabulary, tokens)
    labels = labels.masked_fill(torch.rand(tokens) < 0.3, -100)
    return torch.randn(*tokens, width, dtype=torch.float64).requires_grad_(), labels


HEADS = [{}, {"bias": True}, {"softcap": 2.0}, {"scale": 0.3}]
HEADS += [{"bias": True, "scale": 0.7, "softcap": 2.5}]


@pytest.mark.parametrize("options", HEADS)
@pytest.mark.parametrize("fused", [True, False])
def test_it_is_that_of_torch_on_whole_logits(options, fused):
    student, labels = draw(5, 7)
    head = Head(8, 11, **options)
    mask = torch.arange(35).reshape(5, 7) % 4 != 1
    inputs = [x for x in (student, head.weight, head.bias) if x is not None]
    for given_mask in (None, mask):
        own = labels if given_mask is None else labels.masked_fill(~mask, -100)
        expected = F.cross_entropy(head(student).flatten(0, 1), own.flatten())
        # In chunks of two or three tokens.
        criterion = FusedLinearCrossEntropy(chunk_mb=250 / 2**20, fused=fused)
        found = criterion(student, labels, head, given_mask)
        assert_close(found, expected)
        assert_close(gradients(2 * found, *inputs), gradients(2 * expected, *inputs))
    values = fused_linear_cross_entropy(student, labels, head)
    expected = F.cross_entropy(head(student).flatten(0, 1), labels.flatten(), reduction="none")
    assert_close(values, expected.reshape(5, 7))


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    vocabulary=st.integers(1, 40),
    chunk=st.integers(1, 4000),
    seed=st.integers(0, 2**31),
)
def test_any_shape_and_any_chunk_agree(shape, vocabulary, chunk, seed):
    torch.manual_seed(seed)
    student, labels = draw(*shape, vocabulary=vocabulary)
    head = Head(8, vocabulary)
    found = FusedLinearCrossEntropy(chunk_mb=chunk / 2**20)(student, labels, head)
    inputs = student, head.weight
    if not (labels >= 0).any():
        assert found == 0 and not any(g.any() for g in gradients(found, *inputs))
        return
    expected = F.cross_entropy(head(student).reshape(-1, vocabulary), labels.reshape(-1))
    assert_close(found, expected)
    assert_close(gradients(found, *inputs), gradients(expected, *inputs))


def test_labels_may_be_the_tokens_themselves():
    student, labels = draw(2, 5)
    head = Head(8, 11)
    aligned = torch.cat([labels[:, 1:], torch.full((2, 1), -100)], 1)
    found = FusedLinearCrossEntropy(shift_labels=True)(student, labels, head)
    assert_close(found, FusedLinearCrossEntropy()(student, aligned, head))


def test_logits_far_apart_lose_nothing():
    head = Head(1, 3)
    head.weight.data = torch.tensor([[1e4], [-1e4], [0.0]], dtype=torch.float64)
    student = torch.ones(1, 1, dtype=torch.float64).requires_grad_()
    for label in range(3):
        labels = torch.tensor([label])
        found = FusedLinearCrossEntropy()(student, labels, head)
        expected = F.cross_entropy(head(student), labels)
        assert_close(found, expected)
        assert_close(gradients(found, student), gradients(expected, student))


def test_no_logits_are_ever_whole_and_what_has_no_label_is_not_computed():
    student, labels = draw(1000, vocabulary=500)
    labels[:400] = -100
    labels[400:] = labels[400:].clamp(min=0)
    head = Head(8, 500)
    with Allocations() as made:
        FusedLinearCrossEntropy(chunk_mb=0.25)(student, labels, head).backward()
    assert made.largest <= 0.25 * 2**20 / 8 < 1000 * 500 / 8
    # The logits, and the two products of the gradient; that of the weight has rows of its own.
    with Allocations() as made:
        FusedLinearCrossEntropy(chunk_mb=16)(student, labels, head)
    assert made.rows == [600, 600, 500]


def test_sixteen_bits_and_autocast():
    student, labels = (x.float() if x.is_floating_point() else x for x in draw(64))
    student, head = student.detach().requires_grad_(), Head(8, 11, True).float()
    expected = F.cross_entropy(head(student), labels)
    with torch.autocast("cpu", torch.bfloat16):
        found = FusedLinearCrossEntropy()(student, labels, head)
        plain = FusedLinearCrossEntropy(fused=False)(student, labels, head)
    assert found.dtype == torch.float32 and found != expected
    assert_close(found, plain, rtol=1e-3, atol=1e-4)
    assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_what_does_not_fit_is_refused_with_words():
    student, labels = draw(4, 3)
    head, criterion = Head(8, 11), FusedLinearCrossEntropy()
    with pytest.raises(ValueError, match=r"Label 11 does not exist: the student's head has 11"):
        criterion(student, torch.full((4, 3), 11), head)
    with pytest.raises(ValueError, match=r"one entry per token, shape \(4, 3\), got \(4,\)"):
        criterion(student, labels[:, 0], head)
    with pytest.raises(ValueError, match="8 wide and its head takes 7"):
        criterion(student, labels, Head(7, 11))
    with pytest.raises(ValueError, match="`chunk_mb` must be positive, got 0"):
        FusedLinearCrossEntropy(chunk_mb=0.0)
    weighed = SampleWeighted(criterion)
    with pytest.raises(ValueError, match=r"FusedLinearCrossEntropy cannot be weighed.*HardLabel"):
        weighed(student, labels=labels, student_head=head, weight=torch.ones(4))
