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


def test_weights_that_say_nothing_are_refused():
    for weights in ((0.0, 0.0), (-1.0, 2.0)):
        with pytest.raises(ValueError, match="must not be negative, nor both 0"):
            RKD(*weights)
