import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.criteria import SRD, srd


def naive_norm(x):
    mean = x.sum(0) / len(x)
    variance = ((x - mean) ** 2).sum(0) / len(x)
    return (x - mean) / (variance + 1e-4).sqrt()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1.0, 2.0, 4.0, 5.5]))
def test_agrees_with_the_definition(batch, features, power):
    student, teacher = torch.randn(2, batch, features).double()
    total = sum(
        abs(float(student[b, i] - teacher[b, i])) ** power
        for b in range(batch)
        for i in range(features)
    )
    assert float(srd(student, teacher, power)) == pytest.approx(math.log(total + 1e-12))


@pytest.mark.parametrize("maps", [False, True])
def test_both_are_normed_behind_the_projector(maps):
    student, teacher = torch.randn(6, 3, 2, 2).double(), torch.randn(6, 5, 4, 4).double()
    if not maps:
        student, teacher = student.mean((2, 3)), teacher.mean((2, 3))
    criterion = SRD()
    criterion.prepare(student, teacher)
    s, t = (x.mean((2, 3)) if maps else x for x in (student, teacher))
    s = s @ criterion.projector.weight.T + criterion.projector.bias
    expected = ((naive_norm(s) - naive_norm(t)) ** 4).sum().log()
    assert_close(criterion(student, teacher), expected)
    # Torch's batch norm is the oracle of what is kept.
    oracle = torch.nn.BatchNorm1d(5, eps=1e-4, affine=False).double()
    oracle(t)
    assert_close(criterion.teacher_norm.running_var, oracle.running_var)
    criterion.eval()
    expected = (criterion.student_norm(s) - oracle.eval()(t)).pow(4).sum().log()
    assert_close(criterion(student, teacher), expected)


def test_a_perfect_match_is_the_floor_without_a_gradient():
    x = torch.randn(4, 3, requires_grad=True)
    loss = srd(x, x.detach().clone())
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1e-12)) and not x.grad.any()


def test_a_high_power_looks_at_the_largest_difference_alone():
    student, teacher = torch.randn(2, 4, 3).double()
    largest = (student - teacher).abs().max().log()
    assert_close(srd(student, teacher, 60.0) / 60, largest, atol=0.02, rtol=0.0)


def test_the_scale_and_shift_of_the_teacher_do_not_matter():
    student, teacher = torch.randn(8, 3).double(), torch.randn(8, 5).double()
    criterion = SRD()
    criterion.prepare(student, teacher)
    other = 50 * teacher + 7
    assert_close(criterion(student, other), criterion(student, teacher), rtol=1e-3, atol=1e-3)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="`power` must be at least 1, got 0.5"):
        SRD(power=0.5)
    criterion = SRD()
    criterion.prepare(torch.randn(2, 3), torch.randn(2, 4))
    with pytest.raises(ValueError, match="teacher's features must be vectors .* shape .2, 4, 5"):
        criterion(torch.randn(2, 3), torch.randn(2, 4, 5))
