import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import DKD, dkd, soft_target

LABELS = torch.arange(16) % 10


def parts(logits, temperature):
    """Binary distribution, and the one over the rest, by plain division."""
    p = (logits / temperature).softmax(-1)
    rows = torch.arange(len(p))
    target = p[rows, LABELS]
    keep = torch.ones_like(p, dtype=torch.bool)
    keep[rows, LABELS] = False
    rest = p[keep].view(len(p), -1)
    return torch.stack([target, 1 - target], -1), rest / rest.sum(-1, keepdim=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_agrees_with_the_definition(logits, temperature):
    (b_s, r_s), (b_t, r_t) = (parts(x, temperature) for x in logits)
    target = (b_t * (b_t / b_s).log()).sum(-1)
    rest = (r_t * (r_t / r_s).log()).sum(-1)
    expected = temperature**2 * (1.5 * target + 8 * rest)
    assert_close(dkd(*logits, LABELS, 1.5, 8.0, temperature), expected)


def test_weighed_by_the_teachers_doubt_it_is_kl(logits):
    """Equation 6 of the paper: KL is the first part, and (1 - p_y) times the second."""
    student, teacher = logits
    doubt = 1 - (teacher / 4).softmax(-1).gather(-1, LABELS[:, None]).squeeze(-1)
    first = dkd(student, teacher, LABELS, 1.0, 0.0)
    second = dkd(student, teacher, LABELS, 0.0, 1.0)
    assert_close(first + doubt * second, soft_target(student, teacher, 4.0))


def test_two_classes_have_no_rest():
    student, teacher = torch.randn(2, 5, 2, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1])
    assert_close(dkd(student, teacher, labels, 1.0, 8.0, 2.0), soft_target(student, teacher, 2.0))


def test_a_sure_teacher_gives_no_nan():
    """The published programs take the logarithm of 1 - p, which is infinite here."""
    student = torch.tensor([[-300.0, 0.0, 300.0], [300.0, 0.0, -300.0]], requires_grad=True)
    loss = DKD(temperature=1.0)(student, -student.detach(), torch.tensor([0, 0]))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all() and loss > 100


def test_unlabelled_rows_do_not_count(logits):
    labels = LABELS.clone()
    labels[3:] = -100
    student, teacher = logits
    expected = dkd(student[:3], teacher[:3], LABELS[:3]).mean()
    assert_close(DKD()(student, teacher, labels), expected)
