import math

import torch
from torch.testing import assert_close

from lightning_distill.criteria import correlation_congruence, CorrelationCongruence


def test_agrees_with_the_definition():
    student, teacher = torch.randn(5, 3).double(), torch.randn(5, 8).double()
    total = 0.0
    for i in range(5):
        for j in range(5):
            kernels = []
            for x in (student, teacher):
                c = (x[i] @ x[j]) / (x[i] @ x[i]).sqrt() / (x[j] @ x[j]).sqrt()
                kernels.append(math.exp(-0.8) * (1 + 0.8 * c + 0.64 / 2 * c**2))
            total += (kernels[0] - kernels[1]) ** 2
    assert_close(correlation_congruence(student, teacher), total / 25)


def test_at_a_high_order_it_is_the_gaussian_kernel():
    student, teacher = torch.randn(6, 3).double(), torch.randn(6, 8).double()
    kernels = []
    for x in (student, teacher):
        unit = x / x.norm(dim=1, keepdim=True)
        kernels.append((-0.4 * torch.cdist(unit, unit) ** 2).exp())
    expected = (kernels[0] - kernels[1]).pow(2).mean()
    assert_close(correlation_congruence(student, teacher, order=12), expected)


def test_a_rotation_and_a_scale_change_nothing():
    x = torch.randn(6, 4).double()
    rotation, _ = torch.linalg.qr(torch.randn(4, 4).double())
    assert_close(CorrelationCongruence()(3 * x @ rotation, x), torch.zeros(()).double())
