import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_distill.criteria import attention_transfer, AttentionTransfer


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_agrees_with_the_definition(variant, power):
    student, teacher = torch.randn(3, 4, 5, 6).double(), torch.randn(3, 7, 5, 6).double()
    expected = []
    for s, t in zip(student, teacher, strict=True):
        maps = [(x.abs() ** power).sum(0).flatten() for x in (s, t)]
        difference = maps[0] / maps[0].norm() - maps[1] / maps[1].norm()
        expected.append(difference.norm() if variant == "paper" else (difference**2).mean())
    assert_close(attention_transfer(student, teacher, power, variant), torch.stack(expected))


def test_the_larger_map_is_averaged_down():
    student, teacher = torch.randn(3, 4, 4, 4), torch.randn(3, 7, 8, 8)
    expected = attention_transfer(student, F.avg_pool2d(teacher, 2))
    assert_close(attention_transfer(student, teacher), expected)


def test_the_strength_of_the_activity_does_not_matter():
    x = torch.randn(2, 3, 4, 4).double()
    assert_close(AttentionTransfer()(5 * x, x), torch.zeros(()).double())


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="`variant` must be one of paper, code, got 'x'"):
        AttentionTransfer(variant="x")
    with pytest.raises(ValueError, match="`power` must be positive, got 0"):
        AttentionTransfer(power=0.0)
