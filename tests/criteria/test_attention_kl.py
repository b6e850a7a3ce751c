import torch
from torch.testing import assert_close

from lightning_distill.criteria import attention_kl, AttentionKL


def test_agrees_with_the_definition():
    student, teacher = torch.randn(2, 2, 3, 5, 5, dtype=torch.float64).softmax(-1)
    expected = (teacher * (teacher / student).log()).sum(-1).mean(1)
    assert_close(attention_kl(student, teacher), expected)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    assert_close(AttentionKL()(student, teacher, mask), expected[mask == 1].mean())


def test_keys_without_attention_give_no_nan():
    teacher = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]])
    student = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]], requires_grad=True)
    loss = AttentionKL()(student, teacher)
    loss.backward()
    assert loss.isfinite() and loss > 5 and student.grad.isfinite().all()
    assert AttentionKL()(teacher, teacher) == 0
