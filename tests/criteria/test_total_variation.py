import torch
from torch.testing import assert_close

from lightning_distill.criteria import reverse_kl, soft_target, total_variation, TotalVariation


def test_agrees_with_the_definition(logits):
    student, teacher = logits
    q, p = student.softmax(-1), teacher.softmax(-1)
    assert_close(total_variation(student, teacher), (p - q).abs().sum(-1) / 2)
    # The largest difference of any set of classes: those that the teacher likes more.
    assert_close(total_variation(student, teacher), (p - q).clamp(min=0).sum(-1))


def test_it_is_symmetric_from_zero_to_one(logits):
    student, teacher = logits
    assert_close(total_variation(student, teacher), total_variation(teacher, student))
    assert TotalVariation()(student, student) == 0
    apart = total_variation(torch.tensor([1e4, 0.0]), torch.tensor([0.0, 1e4]))
    assert_close(apart, torch.tensor(1.0))


def test_pinskers_inequality(logits):
    for divergence in (soft_target, reverse_kl):
        bound = (divergence(*logits, 1.0) / 2).sqrt()
        assert (total_variation(*logits) <= bound + 1e-12).all()


def test_equal_distributions_have_no_gradient():
    student = torch.zeros(3, 4, requires_grad=True)
    TotalVariation()(student, torch.zeros(3, 4)).backward()
    assert torch.equal(student.grad, torch.zeros(3, 4))
