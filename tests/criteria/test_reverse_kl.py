import torch
from torch.testing import assert_close

from lightning_distill.criteria import reverse_kl, ReverseKL, soft_target


def test_agrees_with_the_definition(logits):
    student, teacher = logits
    q, p = (student / 3).softmax(-1), (teacher / 3).softmax(-1)
    assert_close(reverse_kl(student, teacher, 3.0), 9 * (q * (q / p).log()).sum(-1))


def test_is_forward_kl_with_the_models_exchanged(logits):
    student, teacher = logits
    assert_close(reverse_kl(student, teacher, 2.0), soft_target(teacher, student, 2.0))


def test_it_settles_on_a_mode_where_forward_kl_spreads():
    """Section 2.1: a student with one hump, a teacher with two."""
    places = torch.arange(41.0)
    teacher = torch.logsumexp(torch.stack([-((places - m) ** 2) / 8 for m in (10.0, 30.0)]), dim=0)
    found = {}
    for name, function in (("forward", soft_target), ("reverse", reverse_kl)):
        mean, width = torch.tensor(18.0, requires_grad=True), torch.tensor(4.0, requires_grad=True)
        adam = torch.optim.Adam([mean, width], lr=0.1)
        for _ in range(400):
            adam.zero_grad()
            function(-((places - mean) ** 2) / (2 * width**2), teacher, 1.0).backward()
            adam.step()
        found[name] = (mean.item(), abs(width.item()))
    assert abs(found["forward"][0] - 20) < 2 and found["forward"][1] > 8
    assert abs(found["reverse"][0] - 10) < 1 and found["reverse"][1] < 3


def test_is_zero_when_the_student_equals_the_teacher(logits):
    assert_close(ReverseKL()(logits[0], logits[0]), torch.zeros((), dtype=torch.float64))
