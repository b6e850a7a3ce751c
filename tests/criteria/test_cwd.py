import torch
from torch.testing import assert_close

from lightning_distill.criteria import CWD, cwd


def test_agrees_with_the_definition():
    student, teacher = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    expected = []
    for s, t in zip(student, teacher, strict=True):
        channels = []
        for a, b in zip(s, t, strict=True):
            q, p = (a.flatten() / 4).softmax(0), (b.flatten() / 4).softmax(0)
            channels.append(16 * (p * (p / q).log()).sum())
        expected.append(sum(channels) / 4)
    assert_close(cwd(student, teacher), torch.stack(expected))


def test_a_shift_of_a_channel_does_not_matter():
    student, teacher = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    shift = torch.randn(3, 4, 1, 1, dtype=torch.float64)
    assert_close(cwd(student + shift, teacher), cwd(student, teacher))
    assert_close(CWD()(teacher + shift, teacher), torch.zeros((), dtype=torch.float64))
