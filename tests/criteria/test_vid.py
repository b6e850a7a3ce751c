import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from jaxtyping import TypeCheckError
from torch.testing import assert_close

from lightning_distill.criteria import VID, vid


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_agrees_with_the_definition(batch, channels, side, seed):
    torch.manual_seed(seed)
    student, teacher = torch.randn(2, batch, channels, side, 2, dtype=torch.float64)
    variance = torch.rand(channels, dtype=torch.float64) + 0.1
    expected = []
    for s, t in zip(student, teacher, strict=True):
        terms = [
            (s[c, i, j] - t[c, i, j]) ** 2 / (2 * variance[c]) + 0.5 * math.log(variance[c])
            for c in range(channels)
            for i in range(side)
            for j in range(2)
        ]
        expected.append(sum(terms) / len(terms))
    assert_close(vid(student, teacher, variance), torch.stack(expected))


def test_it_is_the_likelihood_of_a_normal_distribution_without_its_constant():
    student, teacher = torch.randn(2, 4, 3, 5).double()
    variance = torch.tensor([0.5, 1.0, 4.0]).double()
    normal = torch.distributions.Normal(student, variance.sqrt()[:, None])
    expected = -normal.log_prob(teacher).mean((1, 2)) - 0.5 * math.log(2 * math.pi)
    assert_close(vid(student, teacher, variance), expected)


def test_with_a_variance_of_one_it_is_half_of_the_squared_error():
    student, teacher = torch.randn(2, 4, 3, 2, 2).double()
    expected = F.mse_loss(student, teacher) / 2
    assert_close(vid(student, teacher, torch.ones(3).double()).mean(), expected)


def test_the_best_variance_is_the_squared_error_of_the_channel():
    student, teacher = torch.randn(2, 4, 3, 5).double()
    variance = (student - teacher).square().mean((0, 2)).requires_grad_()
    (gradient,) = torch.autograd.grad(vid(student, teacher, variance).mean(), variance)
    assert_close(gradient, torch.zeros(3).double(), atol=1e-12, rtol=0.0)


def test_the_module_predicts_with_three_convolutions_and_starts_at_its_variance():
    student, teacher = torch.randn(4, 2, 4, 4), torch.randn(4, 3, 4, 4)
    criterion = VID(variance=5.0)
    criterion.prepare(student, teacher)
    shapes = [tuple(p.shape) for p in criterion.mean.parameters()]
    assert shapes == [(3, 2, 1, 1), (3, 3, 1, 1), (3, 3, 1, 1)]
    x = student
    for i, weight in enumerate(criterion.mean.parameters()):
        x = torch.einsum("bchw,dc->bdhw", x if i == 0 else x.relu(), weight[:, :, 0, 0])
    assert_close(criterion(student, teacher), vid(x, teacher, torch.full((3,), 5.0)).mean())
    assert_close(F.softplus(criterion.raw_variance) + 1e-5, torch.full((3,), 5.0))


def test_the_larger_map_is_averaged_down():
    student, teacher = torch.randn(3, 2, 4, 4), torch.randn(3, 3, 8, 8)
    criterion = VID()
    criterion.prepare(student, teacher)
    assert_close(criterion(student, teacher), criterion(student, F.avg_pool2d(teacher, 2)))


@pytest.mark.parametrize("variance", [0.0, -1.0, 1e-6])
def test_a_variance_that_is_too_small_is_refused(variance):
    with pytest.raises(ValueError, match=r"`variance` must be (positive|more than 1e-05), got"):
        VID(variance)


def test_features_of_other_shapes_are_refused():
    with pytest.raises((ValueError, TypeCheckError)):
        vid(torch.randn(2, 3, 4), torch.randn(2, 3, 5), torch.ones(3))
