"""Temperatures from logits, alone and within criteria."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_distill import criteria, Objective, Term
from lightning_distill.criteria import (
    CWD,
    DIST,
    DKD,
    JSD,
    KnowledgeDistillation,
    NKD,
    ReverseKL,
    SkewKL,
    SkewReverseKL,
    soft_target,
    SoftCrossEntropy,
    SoftTarget,
    TotalVariation,
    WSLD,
)
from lightning_distill.schedules import Linear
from lightning_distill.temperatures import CTKD, CWSM, FLSW
from lightning_distill.temperatures.flsw import flsw


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 16, 10, generator=generator, dtype=torch.float64)


def test_flsw_agrees_with_the_definition(logits):
    student, teacher = logits
    w = [(1 - s @ t / (s.norm() * t.norm())) ** 3 for s, t in zip(student, teacher, strict=True)]
    w = torch.stack(w)
    expected = 6.0 + 1.5 * (w.mean() - w)
    found = FLSW(6.0, beta=1.5, gamma=3.0, lowest=0.1)(student, teacher)
    assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.5


def test_cwsm_agrees_with_the_definition(logits):
    student, teacher = logits
    w = 1 / student.softmax(-1).max(-1).values
    found = CWSM(6.0, beta=0.5, lowest=0.1)(student, teacher)
    assert_close(found.double(), 6.0 + 0.5 * (w.mean() - w), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", [FLSW, CWSM])
def test_equal_samples_have_the_given_temperature(build, logits):
    student, teacher = (x[:1].expand(5, 10) for x in logits)
    assert_close(build(3.0)(student, teacher), torch.full((5,), 3.0))


@pytest.mark.parametrize("build", [FLSW, CWSM])
def test_no_temperature_is_below_the_lowest(build, logits):
    found = build(2.0, beta=100.0, lowest=1.5)(*logits)
    assert found.min() == 1.5 and found.max() > 2.0


PER_SAMPLE = {
    "FLSW": lambda: FLSW(3.0, beta=2.0),
    "CWSM": lambda: CWSM(3.0),
    "CTKD": lambda: CTKD(per_sample=True),
}


@pytest.mark.parametrize("name", PER_SAMPLE)
def test_what_is_masked_does_not_count(name, logits):
    student, teacher = (x.clone() for x in logits)
    temperature, mask = PER_SAMPLE[name](), torch.arange(16) % 3 != 0
    criterion = SoftTarget(temperature)
    expected = criterion(student[mask], teacher[mask])
    teacher[~mask] = torch.nan
    student.requires_grad_()
    loss = criterion(student, teacher, mask)
    assert_close(loss, expected)
    loss.backward()
    assert student.grad[mask].isfinite().all()
    assert all(p.grad.isfinite().all() for p in temperature.parameters())


def test_each_sample_is_compared_at_its_own_temperature(logits):
    student, teacher = logits
    temperature = FLSW(3.0, beta=2.0)
    each = temperature(student, teacher)
    expected = torch.stack(
        [soft_target(s, t, float(tau)) for s, t, tau in zip(student, teacher, each, strict=True)]
    )
    assert_close(SoftTarget(temperature)(student, teacher), expected.mean())


TAKING = {
    "SoftTarget": SoftTarget,
    "SoftCrossEntropy": SoftCrossEntropy,
    "ReverseKL": ReverseKL,
    "JSD": lambda t: JSD(temperature=t),
    "SkewKL": lambda t: SkewKL(temperature=t),
    "SkewReverseKL": lambda t: SkewReverseKL(temperature=t),
    "TotalVariation": TotalVariation,
    "DKD": lambda t: DKD(temperature=t),
    "NKD": lambda t: NKD(temperature=t),
    "WSLD": lambda t: WSLD(temperature=t),
}


class Given(nn.Module):
    """Temperatures as they are given."""

    reads_logits = True

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, student, teacher, mask=None):
        return self.values


@pytest.mark.parametrize("name", TAKING)
def test_criteria_take_one_temperature_per_sample(name, logits):
    student, teacher = logits
    more = (torch.arange(16) % 10,) if name in ("DKD", "NKD", "WSLD") else ()
    values = torch.linspace(0.5, 5.0, 16, dtype=torch.float64)
    found = TAKING[name](Given(values))(student, teacher, *more)
    each = [
        TAKING[name](float(values[i]))(*(x[i : i + 1] for x in (student, teacher, *more)))
        for i in range(16)
    ]
    assert_close(found, torch.stack(each).mean())
    one = TAKING[name](Given(torch.tensor(2.0)))(student, teacher, *more)
    assert_close(one, TAKING[name](2.0)(student, teacher, *more))


@pytest.mark.parametrize(
    "build",
    [lambda t: DIST(temperature=t), CWD, lambda t: KnowledgeDistillation(temperature=t)],
)
def test_criteria_that_take_one_number_refuse_more(build):
    with pytest.raises(ValueError, match=r"`temperature` must be a number or a schedule .* FLSW"):
        build(FLSW())


def test_temperatures_that_fall_to_zero_are_refused(logits):
    with pytest.raises(ValueError, match=r"`temperature` must be positive, got -1"):
        SoftTarget(Given(torch.linspace(-1, 1, 16)))(*logits)


@pytest.mark.parametrize("per_sample", [False, True])
def test_ctkd_is_learned_against_the_student(per_sample, logits):
    student, teacher = (x.float() for x in logits)
    student.requires_grad_()
    torch.manual_seed(0)
    temperature = CTKD(per_sample=per_sample)
    criterion = SoftTarget(temperature)
    before = criterion(student, teacher)
    before.backward()
    # A step of descent along what it was given raises the loss.
    with torch.no_grad():
        for p in temperature.parameters():
            p -= 0.01 * p.grad / p.grad.norm().clamp(min=1e-9)
    assert criterion(student, teacher) > before
    assert_close(
        student.grad,
        torch.autograd.grad(
            SoftTarget(Given(temperature(student, teacher).detach()))(student, teacher), student
        )[0],
        rtol=0.2,
        atol=1e-3,
    )


def test_ctkd_starts_in_the_middle_and_stays_in_its_span(logits):
    temperature = CTKD(lowest=2.0, span=6.0)
    assert temperature(*logits) == 5.0
    temperature.value.data.fill_(100.0)
    assert temperature(*logits) == 8.0


def test_the_strength_of_ctkd_scales_its_gradient_alone(logits):
    def gradient(strength):
        student = logits[0].clone().requires_grad_()
        temperature = CTKD(strength)
        SoftTarget(temperature)(student, logits[1]).backward()
        return temperature.value.grad, student.grad

    full, of_student = gradient(1.0)
    half, same = gradient(lambda: 0.5)
    assert_close(half, full / 2)
    assert_close(same, of_student)


def test_a_schedule_within_a_temperature_follows_the_run():
    ramp = Linear(0.0, 1.0)
    inputs = {"student": "student.logits", "teacher": "teacher.logits"}
    objective = Objective({"soft": Term(SoftTarget(CTKD(ramp)), inputs)})
    objective.advance(0.25)
    assert objective.terms["soft"].criterion.temperature.strength() == 0.25


@pytest.mark.parametrize("build", [FLSW, CWSM])
def test_temperatures_that_cannot_be_are_refused(build):
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        build(0.0)
    with pytest.raises(ValueError, match="`lowest` must be positive, got -1"):
        build(lowest=-1)
    with pytest.raises(ValueError, match="`strength` must not be negative"):
        CTKD(-1.0)


def test_every_logit_criterion_with_a_temperature_was_looked_at():
    names = {n for n in criteria.__all__ if hasattr(getattr(criteria, n), "forward")}
    assert set(TAKING) <= names


def test_samples_on_which_the_models_agree_have_no_difficulty():
    """Cosines a last bit above 1 have no square root of their distance from it."""
    x = torch.randn(500, 7, generator=torch.Generator().manual_seed(0))
    assert_close(flsw(x, x, 0.5), torch.zeros(500), atol=1e-3, rtol=0.0)
