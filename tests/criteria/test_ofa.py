import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import OFA, ofa, soft_cross_entropy

LABELS = torch.arange(16) % 10


@pytest.mark.parametrize("epsilon", [1.0, 1.5])
def test_agrees_with_the_definition(logits, epsilon):
    student, teacher = logits
    log_q, p = student.softmax(-1).log(), teacher.softmax(-1)
    one = torch.eye(10, dtype=torch.float64)[LABELS]
    expected = -(((p + one) ** epsilon - one) * log_q).sum(-1)
    assert_close(ofa(student, teacher, LABELS, epsilon), expected)


def test_at_one_it_is_soft_cross_entropy_whatever_the_label(logits):
    assert_close(ofa(*logits, LABELS, 1.0), soft_cross_entropy(*logits))


def test_a_larger_exponent_stresses_the_label(logits):
    student = logits[0].clone().requires_grad_()
    shares = []
    for epsilon in (1.0, 2.0):
        (gradient,) = torch.autograd.grad(ofa(student, logits[1], LABELS, epsilon).sum(), student)
        shares.append(-gradient.gather(-1, LABELS[:, None]).mean())
    assert shares[1] > shares[0]


def test_an_exponent_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="`epsilon` must be positive, got 0"):
        OFA(0.0)
