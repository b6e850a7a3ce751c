import itertools

import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import RKD, rkd


def huber(a, b):
    d = abs(float(a - b))
    return 0.5 * d * d if d < 1 else d - 0.5


def distances(x):
    d = [[(a - b).pow(2).sum().sqrt() for b in x] for a in x]
    mean = sum(d[i][j] for i in range(5) for j in range(5) if i != j) / 20
    return [[v / mean for v in row] for row in d]


def angle(x, i, j, k):
    if j in (i, k):
        return torch.zeros(())
    a, b = x[i] - x[j], x[k] - x[j]
    return (a @ b) / (a @ a).sqrt() / (b @ b).sqrt()


def test_agrees_with_the_definition():
    student, teacher = torch.randn(5, 3).double(), torch.randn(5, 8).double()
    d_s, d_t = distances(student), distances(teacher)
    by_distance = sum(huber(d_s[i][j], d_t[i][j]) for i, j in itertools.product(range(5), repeat=2))
    assert_close(rkd(student, teacher, 1.0, 0.0), torch.tensor(by_distance / 25).double())
    by_angle = sum(
        huber(angle(student, i, j, k), angle(teacher, i, j, k))
        for i, j, k in itertools.product(range(5), repeat=3)
    )
    assert_close(rkd(student, teacher, 0.0, 1.0), torch.tensor(by_angle / 125).double())
    assert_close(
        rkd(student, teacher), torch.tensor(25 * by_distance / 25 + 50 * by_angle / 125).double()
    )


def test_a_rotation_a_scale_and_a_shift_change_nothing():
    x = torch.randn(6, 4).double()
    rotation, _ = torch.linalg.qr(torch.randn(4, 4).double())
    assert_close(RKD()(3 * x @ rotation + 7, x), torch.zeros(()).double())


def test_equal_samples_have_a_finite_gradient():
    student = torch.ones(4, 3, requires_grad=True)
    RKD()(student, torch.randn(4, 5)).backward()
    assert student.grad.isfinite().all()


def test_an_equal_sample_makes_no_angle():
    """All other angles of three samples, of which two are equal, are fixed."""
    student = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]).double().requires_grad_()
    RKD(0.0, 1.0)(student, torch.randn(3, 4).double()).backward()
    assert_close(student.grad, torch.zeros_like(student), atol=1e-9, rtol=0.0)


@pytest.mark.parametrize("apart", [1e-2, 1e-3])
def test_samples_that_lie_close_keep_their_angles_in_single_precision(apart):
    student, teacher = torch.randn(8, 16), torch.randn(8, 16)
    student[1] = student[0] + apart * torch.randn(16)
    student += 10
    expected = rkd(student.double(), teacher.double(), 0.0, 1.0)
    found = rkd(student, teacher, 0.0, 1.0)
    assert_close(found.double(), expected, rtol=1e-3, atol=1e-6)


def test_weights_that_say_nothing_are_refused():
    for weights in ((0.0, 0.0), (-1.0, 2.0)):
        with pytest.raises(ValueError, match="must not be negative, nor both 0"):
            RKD(*weights)
