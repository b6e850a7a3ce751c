import torch
from torch.testing import assert_close

from lightning_distill.criteria import listwise_kl, ListwiseKL


def test_agrees_with_the_definition_over_lists_of_several_lengths():
    student, teacher = torch.randn(2, 4, 6, dtype=torch.float64)
    lengths = [6, 3, 1, 2]
    candidates = torch.arange(6) < torch.tensor(lengths)[:, None]
    expected = []
    for s, t, n in zip(student, teacher, lengths, strict=True):
        q, p = (s[:n] / 2).softmax(-1), (t[:n] / 2).softmax(-1)
        expected.append(4 * (p * (p / q).log()).sum())
    found = listwise_kl(student, teacher, 2.0, candidates)
    assert_close(found, torch.stack(expected))
    # What stands where no candidate is does not matter, and has no gradient.
    student = student.masked_fill(~candidates, torch.nan).requires_grad_()
    ListwiseKL(2.0)(student, teacher, candidates=candidates).backward()
    assert student.grad[candidates].isfinite().all()
    assert (student.grad[~candidates] == 0).all()


def test_a_query_without_candidates_is_zero():
    student = torch.randn(2, 3, requires_grad=True)
    candidates = torch.tensor([[True, True, False], [False, False, False]])
    values = listwise_kl(student, torch.randn(2, 3), 1.0, candidates)
    assert values[1] == 0
    values.sum().backward()
    assert student.grad.isfinite().all()
