import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import mini_lm_relation, MiniLMRelation


def relations(x, heads, n):
    """Of one sequence of n tokens: per head, the softmax of scaled products."""
    size = x.shape[1] // heads
    found = []
    for a in range(heads):
        part = x[:n, a * size : (a + 1) * size]
        found.append((part @ part.T / size**0.5).softmax(-1))
    return torch.stack(found)


def test_agrees_with_the_definition():
    student, teacher = torch.randn(2, 5, 8).double(), torch.randn(2, 5, 12).double()
    lengths = [5, 3]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    total, count = 0.0, 0
    for s, t, n in zip(student, teacher, lengths, strict=True):
        q, p = relations(s, 4, n), relations(t, 4, n)
        total += (p * (p / q).log()).sum(-1).mean(0).sum()
        count += n
    assert_close(MiniLMRelation(4)(student, teacher, mask), total / count)


def test_a_rotation_within_the_heads_changes_nothing():
    x = torch.randn(2, 5, 8).double()
    rotation, _ = torch.linalg.qr(torch.randn(4, 4).double())
    turned = torch.cat([x[..., :4] @ rotation, x[..., 4:] @ rotation], -1)
    assert_close(MiniLMRelation(2)(turned, x), torch.zeros(()).double())


def test_what_stands_at_padding_may_be_anything():
    student, teacher = torch.randn(2, 5, 8), torch.randn(2, 5, 12)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    expected = MiniLMRelation(2)(student, teacher, mask)
    student[mask == 0] = torch.nan
    student.requires_grad_()
    loss = MiniLMRelation(2)(student, teacher, mask)
    loss.backward()
    assert_close(loss, expected)
    assert student.grad.isfinite().all()


def test_a_width_that_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match="teacher's width 9 is no multiple of relation_heads=4"):
        mini_lm_relation(torch.zeros(1, 2, 8), torch.zeros(1, 2, 9), 4)
    with pytest.raises(ValueError, match="`relation_heads` must be positive, got 0"):
        MiniLMRelation(0)
