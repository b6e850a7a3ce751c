import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_distill.criteria import soft_target, SoftTarget


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_agrees_with_the_definition(logits, temperature):
    student, teacher = logits
    q = (student / temperature).softmax(-1)
    p = (teacher / temperature).softmax(-1)
    expected = temperature**2 * (p * (p / q).log()).sum(-1)
    assert_close(soft_target(student, teacher, temperature), expected)


def test_is_zero_when_the_student_equals_the_teacher(logits):
    student, _ = logits
    assert_close(SoftTarget()(student, student), torch.zeros((), dtype=student.dtype))


def test_is_positive_and_not_symmetric(logits):
    student, teacher = logits
    assert (soft_target(student, teacher) > 0).all()
    assert not torch.allclose(soft_target(student, teacher), soft_target(teacher, student))


def test_hot_temperature_is_matching_centred_logits(logits):
    """Section 2.1 of the paper: as the temperature grows, KL becomes squared error."""
    student, teacher = (x - x.mean(-1, keepdim=True) for x in logits)
    expected = nn.MSELoss()(student, teacher) / 2
    assert_close(SoftTarget(1e4)(student, teacher), expected, rtol=1e-3, atol=0.0)


def test_the_gradient_keeps_its_size_when_the_temperature_rises(logits):
    sizes = []
    for temperature in (50.0, 100.0):
        student = logits[0].clone().requires_grad_()
        SoftTarget(temperature)(student, logits[1]).backward()
        sizes.append(student.grad.norm())
    assert_close(sizes[0], sizes[1], rtol=0.05, atol=0.0)


def test_classes_that_the_teacher_rules_out_add_nothing(logits):
    student, teacher = (x.clone() for x in logits)
    teacher[:, 0] = -torch.inf
    p = teacher.softmax(-1)
    terms = p * (p.log() - student.log_softmax(-1))
    expected = terms[:, 1:].sum(-1)
    assert_close(soft_target(student, teacher, 1.0), expected)
    student[:, 0] = -torch.inf
    student.requires_grad_()
    loss = soft_target(student, teacher, 1.0).sum()
    loss.backward()
    assert loss.isfinite() and student.grad[:, 1:].isfinite().all()


def test_one_teacher_class_is_cross_entropy(logits):
    """With a one-hot teacher at temperature 1 it is the cross-entropy of that class."""
    student = logits[0]
    labels = torch.arange(16) % 10
    teacher = torch.full_like(student, -torch.inf).scatter(-1, labels[:, None], 0.0)
    expected = nn.functional.cross_entropy(student, labels)
    assert_close(SoftTarget(1.0)(student, teacher), expected)


def test_transforms_of_functions_work(logits):
    student, teacher = (x.clone() for x in logits)
    student[0, 1] = teacher[0, 1] = -torch.inf
    student.requires_grad_()
    (expected,) = torch.autograd.grad(soft_target(student, teacher).sum(), student)
    each = torch.func.vmap(torch.func.grad(soft_target))(student.detach(), teacher)
    assert_close(each, expected)
