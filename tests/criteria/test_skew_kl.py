import math

import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import skew_kl, SkewKL, soft_target


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_agrees_with_the_definition(logits, alpha):
    student, teacher = logits
    q, p = student.softmax(-1), teacher.softmax(-1)
    expected = (p * (p / (alpha * p + (1 - alpha) * q)).log()).sum(-1)
    assert_close(skew_kl(student, teacher, alpha), expected)


def test_without_skew_it_is_forward_kl(logits):
    assert_close(skew_kl(*logits, 0.0, 2.0), soft_target(*logits, 2.0))


def test_it_is_bounded_where_forward_kl_is_not():
    student, teacher = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])
    assert soft_target(student, teacher, 1.0) > 1e3
    assert_close(skew_kl(student, teacher, 0.1), torch.tensor([-math.log(0.1)]))


def test_its_gradient_is_bounded_too():
    student = torch.tensor([[1e4, 0.0]], requires_grad=True)
    SkewKL()(student, torch.tensor([[0.0, 1e4]])).backward()
    assert student.grad.isfinite().all()


def test_a_share_outside_of_its_range_is_refused():
    with pytest.raises(ValueError, match="`alpha` must lie between 0 and 1, got 2"):
        SkewKL(alpha=2.0)
