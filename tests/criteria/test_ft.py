import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.testing import assert_close

from lightning_distill.criteria import FT, ft


@pytest.mark.parametrize("variant", ["paper", "code"])
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.sampled_from([1.0, 2.0]))
def test_agrees_with_the_definition(variant, batch, channels, side, p):
    torch.manual_seed(batch + channels + side)
    student, teacher = torch.randn(2, batch, channels, side, side, dtype=torch.float64)
    expected = []
    for s, t in zip(student, teacher, strict=True):
        s, t = (x.flatten() / (x**2).sum().sqrt() for x in (s, t))
        powers = sum(abs(a - b) ** p for a, b in zip(s, t, strict=True))
        expected.append(powers ** (1 / p) if variant == "paper" else powers / s.numel())
    assert_close(ft(student, teacher, p, variant), torch.stack(expected))


def test_the_scale_of_a_factor_does_not_matter_and_equal_ones_are_zero():
    student, teacher = torch.randn(2, 3, 4, 2, 2).double()
    assert_close(ft(3 * student, teacher), ft(student, teacher))
    same = student.clone().requires_grad_()
    for p in (1.0, 2.0):
        loss = ft(same, student, p)
        assert_close(loss, torch.zeros(3).double())
        (gradient,) = torch.autograd.grad(loss.sum(), same)
        assert gradient.isfinite().all()


def test_opposite_factors_are_twice_the_radius_apart():
    x = torch.randn(3, 4, 2, 2).double()
    assert_close(ft(-x, x, 2.0), torch.full((3,), 2.0).double())


@pytest.fixture
def made():
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3, 4, 4), torch.randn(4, 6, 4, 4)
    criterion = FT()
    criterion.prepare(student, teacher)
    return criterion, student, teacher


def test_the_parts_are_those_of_the_authors(made):
    criterion, _, _ = made
    shapes = {
        name: [tuple(layer.weight.shape[:2]) for layer in part if hasattr(layer, "weight")]
        for name, part in criterion.named_children()
    }
    assert shapes == {
        "paraphraser": [(6, 6), (3, 6), (3, 3)],
        "restorer": [(3, 3), (3, 6), (6, 6)],
        "translator": [(3, 3), (3, 3), (3, 3)],
    }
    slopes = {m.negative_slope for m in criterion.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.1}


def test_the_value_is_the_distance_of_the_factors_and_the_restored_features(made):
    criterion, student, teacher = made
    factor = criterion.paraphraser(teacher)
    distance = ft(criterion.translator(student), factor).mean()
    error = F.mse_loss(criterion.restorer(factor), teacher)
    assert_close(criterion(student, teacher), distance + error)
    criterion.reconstruction = 3.0
    assert_close(criterion(student, teacher), distance + 3 * error)


def test_the_paraphraser_learns_from_the_teacher_alone(made):
    criterion, student, teacher = made
    paraphraser = [*criterion.paraphraser.parameters(), *criterion.restorer.parameters()]
    student, teacher = student.requires_grad_(), teacher.requires_grad_()
    found = torch.autograd.grad(
        criterion(student, teacher), [*paraphraser, teacher], allow_unused=True
    )
    assert found[-1] is None
    rebuilt = criterion.restorer(criterion.paraphraser(teacher.detach()))
    expected = torch.autograd.grad(F.mse_loss(rebuilt, teacher.detach()), paraphraser)
    for one, other in zip(found, expected, strict=False):
        assert_close(one, other)


def test_the_student_and_the_translator_learn_from_the_factors_alone(made):
    criterion, student, teacher = made
    wanted = [student.requires_grad_(), *criterion.translator.parameters()]
    found = torch.autograd.grad(criterion(student, teacher), wanted)
    target = criterion.paraphraser(teacher).detach()
    expected = torch.autograd.grad(ft(criterion.translator(student), target).mean(), wanted)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


def test_without_reconstruction_the_paraphraser_is_kept_as_it_is(made):
    _, student, teacher = made
    criterion = FT(reconstruction=0.0)
    criterion.prepare(student, teacher)
    trained = {name.split(".")[0] for name, p in criterion.named_parameters() if p.requires_grad}
    assert trained == {"translator"}
    target = criterion.paraphraser(teacher)
    assert_close(criterion(student, teacher), ft(criterion.translator(student), target).mean())


def test_training_restores_the_features_and_meets_the_factors(made):
    criterion, student, teacher = made
    before = criterion(student, teacher).detach()
    optimizer = torch.optim.Adam(criterion.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        criterion(student, teacher).backward()
        optimizer.step()
    assert criterion(student, teacher) < 0.8 * before


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="`rate` must be positive, got 0"):
        FT(rate=0.0)
    with pytest.raises(ValueError, match="`reconstruction` must not be negative, got -1"):
        FT(reconstruction=-1.0)
    with pytest.raises(ValueError, match="Did you mean 'paper'"):
        FT(variant="papers")
