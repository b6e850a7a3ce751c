import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_distill.criteria import DKD, LogitStandardization, soft_target, SoftTarget
from lightning_distill.criteria.logit_standardization import logit_standardization


def test_agrees_with_the_definition(logits):
    z = [(x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-7) for x in logits]
    assert_close(logit_standardization(logits[0]), z[0])
    assert_close(LogitStandardization()(*logits), soft_target(*z, 2.0).mean())


def test_scale_and_level_do_not_matter(logits):
    criterion = LogitStandardization(SoftTarget(2.0), epsilon=0.0)
    student, teacher = logits
    assert_close(criterion(3 * student + 5, 0.1 * teacher - 2), criterion(student, teacher))
    assert_close(
        criterion(7 * teacher + 1, teacher), torch.zeros((), dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_equal_logits_become_zero_with_a_finite_gradient():
    student = torch.full((2, 5), 3.0, requires_grad=True)
    LogitStandardization()(student, torch.randn(2, 5)).backward()
    assert student.grad.isfinite().all()
    assert torch.equal(logit_standardization(torch.full((2, 5), 3.0)), torch.zeros(2, 5))


def test_any_criterion_with_its_own_arguments(logits):
    labels = torch.arange(16) % 10
    z = [logit_standardization(x) for x in logits]
    assert_close(LogitStandardization(DKD())(*logits, labels=labels), DKD()(*z, labels))
    assert LogitStandardization(nn.MSELoss())(*logits) >= 0


def test_one_class_is_refused():
    with pytest.raises(ValueError, match=r"One class has no spread; got logits of shape \(3, 1\)"):
        logit_standardization(torch.zeros(3, 1))
