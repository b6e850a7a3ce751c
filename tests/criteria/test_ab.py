import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.criteria import AB, ab
from lightning_distill.criteria._batch_norm import BatchNorm


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.5, 1.0, 2.0]))
def test_agrees_with_the_definition(batch, channels, side, margin):
    torch.manual_seed(batch + channels + side)
    student, teacher = 2 * torch.randn(2, batch, channels, side, side, dtype=torch.float64)
    teacher[0, 0, 0, 0] = 0.0
    expected = []
    for s, t in zip(student.flatten(1), teacher.flatten(1), strict=True):
        total = 0.0
        for a, b in zip(s.tolist(), t.tolist(), strict=True):
            if b > 0 and a <= margin:
                total += (a - margin) ** 2
            if b <= 0 and a > -margin:
                total += (a + margin) ** 2
        expected.append(total)
    assert_close(ab(student, teacher, margin), torch.tensor(expected, dtype=torch.float64))


def test_only_the_side_of_the_teachers_neurons_matters():
    student, teacher = torch.randn(2, 4, 3, 2, 2).double()
    assert_close(ab(student, 100 * teacher), ab(student, teacher))


def test_neurons_beyond_the_margin_on_the_teachers_side_are_done():
    teacher = torch.randn(4, 3, 2, 2).double()
    student = (teacher.sign() * 1.5).requires_grad_()
    loss = ab(student, teacher)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert_close(loss, torch.zeros(4).double())
    assert not gradient.any()
    assert_close(ab(-student, teacher), torch.full((4,), 12 * 2.5**2).double())


def test_there_is_a_connector_only_where_the_channels_differ():
    teacher = torch.randn(4, 3, 2, 2)
    same, other = AB(), AB()
    same.prepare(torch.randn(4, 3, 2, 2), teacher)
    assert not list(same.parameters())
    student = torch.randn(4, 3, 2, 2)
    assert_close(same(student, teacher), ab(student, teacher).mean())
    student = torch.randn(4, 2, 2, 2)
    other.prepare(student, teacher)
    convolution, norm = other.connector.children()
    assert convolution.bias is None and isinstance(norm, BatchNorm)
    mapped = torch.einsum("bchw,dc->bdhw", student, convolution.weight[:, :, 0, 0])
    deviation = mapped.var((0, 2, 3), correction=0, keepdim=True).add(1e-5).sqrt()
    mapped = (mapped - mapped.mean((0, 2, 3), keepdim=True)) / deviation
    assert_close(other(student, teacher), ab(mapped, teacher).mean())


def test_the_larger_map_is_averaged_down():
    student, teacher = torch.randn(3, 3, 4, 4), torch.randn(3, 3, 8, 8)
    criterion = AB()
    criterion.prepare(student, teacher)
    assert_close(criterion(student, teacher), criterion(student, F.avg_pool2d(teacher, 2)))


def test_a_margin_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="`margin` must be positive, got 0"):
        AB(0.0)
