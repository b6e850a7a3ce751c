import torch
from torch.testing import assert_close

from lightning_distill.criteria import soft_cross_entropy, WSLD, wsld

LABELS = torch.arange(16) % 10


def test_agrees_with_the_definition(logits):
    student, teacher = logits
    loss_s = torch.nn.functional.cross_entropy(student, LABELS, reduction="none")
    loss_t = torch.nn.functional.cross_entropy(teacher, LABELS, reduction="none")
    q, p = (student / 2).softmax(-1), (teacher / 2).softmax(-1)
    expected = -4 * (1 - (-loss_s / loss_t).exp()) * (p * q.log()).sum(-1)
    assert_close(wsld(student, teacher, LABELS), expected)


def test_what_the_student_masters_counts_little_and_what_it_lacks_fully():
    teacher = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    student = torch.tensor([[20.0, 0.0], [-90.0, 0.0]])
    weight = wsld(student, teacher, torch.tensor([0, 0])) / soft_cross_entropy(
        student, teacher, 2.0
    )
    assert weight[0] < 1e-6 and abs(weight[1] - 1) < 1e-6


def test_the_weight_has_no_gradient(logits):
    student = logits[0].clone().requires_grad_()
    values = wsld(student, logits[1], LABELS)
    (found,) = torch.autograd.grad(values.sum(), student)
    again = logits[0].clone().requires_grad_()
    soft = soft_cross_entropy(again, logits[1], 2.0)
    (expected,) = torch.autograd.grad((values.detach() / soft.detach() * soft).sum(), again)
    assert_close(found, expected)


def test_a_teacher_without_loss_divides_nothing_by_zero():
    teacher = torch.tensor([[1e4, 0.0]])
    student = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss = WSLD()(student, teacher, torch.tensor([0]))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()
