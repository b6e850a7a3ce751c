import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_distill.criteria import NST, nst


def test_agrees_with_the_definition():
    student, teacher = torch.randn(2, 3, 4, 5).double(), torch.randn(2, 6, 4, 5).double()
    expected = []
    for s, t in zip(student, teacher, strict=True):
        s, t = (x.flatten(1) / x.flatten(1).norm(dim=1, keepdim=True) for x in (s, t))
        tt = sum((a @ b) ** 2 for a in t for b in t) / 36
        ss = sum((a @ b) ** 2 for a in s for b in s) / 9
        st = sum((a @ b) ** 2 for a in s for b in t) / 18
        expected.append(tt + ss - 2 * st)
    assert_close(nst(student, teacher), torch.stack(expected))


def test_the_order_of_the_channels_does_not_matter():
    x = torch.randn(2, 4, 3, 3).double()
    assert_close(NST()(2 * x[:, [2, 0, 3, 1]], x), torch.zeros(()).double())


def test_the_larger_map_is_averaged_down():
    student, teacher = torch.randn(3, 4, 4, 4), torch.randn(3, 7, 8, 8)
    assert_close(nst(student, teacher), nst(student, F.avg_pool2d(teacher, 2)))
