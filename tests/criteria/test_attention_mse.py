import pytest
import torch
from jaxtyping import TypeCheckError
from torch.testing import assert_close

from lightning_distill.criteria import attention_mse, AttentionMSE


def test_agrees_with_the_definition():
    student, teacher = torch.randn(2, 2, 3, 5, 5, dtype=torch.float64)
    lengths = [5, 3]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    total, count = 0.0, 0
    for s, t, n in zip(student, teacher, lengths, strict=True):
        total += ((s - t)[:, :n, :n] ** 2).mean(0).sum()
        count += n * n
    assert_close(AttentionMSE()(student, teacher, mask), total / count)
    assert_close(attention_mse(student, teacher), (student - teacher).square().mean(1))


def test_scores_of_padding_may_be_minus_infinity():
    student = torch.randn(1, 2, 3, 3)
    teacher = torch.randn(1, 2, 3, 3)
    mask = torch.tensor([[1, 1, 0]])
    expected = AttentionMSE()(student, teacher, mask)
    for x in (student, teacher):
        x[..., 2] = -torch.inf
    student.requires_grad_()
    loss = AttentionMSE()(student, teacher, mask)
    loss.backward()
    assert_close(loss, expected)
    assert student.grad.isfinite().all()


def test_another_number_of_heads_is_refused():
    with pytest.raises((ValueError, TypeCheckError), match="number of heads|heads"):
        attention_mse(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3))
