import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import margin_mse, MarginMSE


def test_agrees_with_the_definition():
    student, teacher = torch.randn(2, 5, 4, dtype=torch.float64)
    expected = [
        sum(((s[0] - s[j]) - (t[0] - t[j])) ** 2 for j in range(1, 4)) / 3
        for s, t in zip(student, teacher, strict=True)
    ]
    assert_close(margin_mse(student, teacher), torch.stack(expected))


def test_the_level_of_the_scores_does_not_matter():
    student, teacher = torch.randn(2, 5, 4, dtype=torch.float64)
    shift = torch.randn(5, 1, dtype=torch.float64)
    assert_close(margin_mse(student + shift, teacher), margin_mse(student, teacher))
    assert_close(MarginMSE()(teacher + 7, teacher), torch.zeros((), dtype=torch.float64))


def test_one_candidate_has_no_margin():
    with pytest.raises(ValueError, match=r"at least two candidates per query.*got shape \(3, 1\)"):
        margin_mse(torch.zeros(3, 1), torch.zeros(3, 1))
