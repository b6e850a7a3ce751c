import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import CKA, cka


@pytest.mark.parametrize(("rows", "a", "b"), [(12, 3, 5), (4, 9, 6), (6, 3, 20)])
def test_agrees_with_the_definition(rows, a, b):
    """By Hilbert and Schmidt's criterion of centred Gram matrices, whichever is smaller."""
    student, teacher = torch.randn(rows, a).double(), torch.randn(rows, b).double()
    centring = torch.eye(rows).double() - 1 / rows
    k, m = (centring @ x @ x.T @ centring for x in (student, teacher))
    expected = 1 - (k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt()
    assert_close(cka(student, teacher), expected)


def test_a_rotation_a_scale_and_a_shift_change_nothing():
    x = torch.randn(9, 4).double()
    rotation, _ = torch.linalg.qr(torch.randn(4, 4).double())
    assert_close(CKA()(3 * x @ rotation + 7, x), torch.zeros(()).double())


def test_no_spread_is_one_without_a_gradient():
    student = torch.ones(5, 3, requires_grad=True)
    loss = CKA()(student, torch.randn(5, 4))
    loss.backward()
    assert loss == 1 and torch.equal(student.grad, torch.zeros(5, 3))
