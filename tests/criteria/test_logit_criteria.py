"""What every criterion between logits must do, whatever its formula."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from jaxtyping import TypeCheckError
from torch import nn
from torch.testing import assert_close

from lightning_distill import criteria
from lightning_distill.criteria import (
    Hint,
    KnowledgeDistillation,
    logit_mse,
    LogitMSE,
    soft_cross_entropy,
    soft_target,
    SoftCrossEntropy,
    SoftTarget,
)


class WithLabels(nn.Module):
    """A criterion that wants labels, given those that the teacher finds likeliest."""

    def __init__(self, criterion):
        super().__init__()
        self.criterion = criterion

    def forward(self, student, teacher, mask=None):
        labels = teacher.nan_to_num().argmax(-1)
        if isinstance(self.criterion, criteria.TfKD):
            if student.shape != teacher.shape:
                raise ValueError("must have the same shape")
            return self.criterion(student, labels, mask)
        return self.criterion(student, teacher, labels, mask)


DIVERGENCES = [
    criteria.reverse_kl,
    criteria.jsd,
    criteria.skew_kl,
    criteria.skew_reverse_kl,
    criteria.total_variation,
    criteria.listwise_kl,
]
FUNCTIONS = [soft_target, soft_cross_entropy, logit_mse, criteria.margin_mse, *DIVERGENCES]
# WSLD's weight stops the gradient; its own test looks at that.
LABELLED = [criteria.dkd, criteria.nkd, criteria.ofa]


def with_labels(criterion):
    return lambda temperature: WithLabels(criterion(temperature=temperature))


TEMPERED = {
    "SoftTarget": SoftTarget,
    "SoftCrossEntropy": SoftCrossEntropy,
    "ReverseKL": criteria.ReverseKL,
    "JSD": lambda t: criteria.JSD(0.5, t),
    "SkewKL": lambda t: criteria.SkewKL(0.1, t),
    "SkewReverseKL": lambda t: criteria.SkewReverseKL(0.1, t),
    "TotalVariation": criteria.TotalVariation,
    "ListwiseKL": criteria.ListwiseKL,
    "DKD": with_labels(criteria.DKD),
    "NKD": with_labels(criteria.NKD),
    "WSLD": with_labels(criteria.WSLD),
    "TfKD": with_labels(criteria.TfKD),
    "DIST": lambda t: criteria.DIST(temperature=t),
    "MLKD": lambda t: criteria.MLKD([t]),
}


def at_two(build):
    return lambda: build(2.0)


PER_SAMPLE = {
    **{name: at_two(build) for name, build in TEMPERED.items() if name not in ("DIST", "MLKD")},
    "LogitMSE": LogitMSE,
    "MarginMSE": criteria.MarginMSE,
    "TAID": lambda: criteria.TAID(step=0.0),
    "OFA": lambda: WithLabels(criteria.OFA()),
    "LogitStandardization": criteria.LogitStandardization,
    "Hint": Hint,
    "Hint cosine": lambda: Hint("cosine"),
    "Hint kl": lambda: Hint("kl"),
}
RELATIONAL = {"DIST": criteria.DIST, "MLKD": criteria.MLKD}
MODULES = [pytest.param(build, id=name) for name, build in (PER_SAMPLE | RELATIONAL).items()]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradient(function, logits):
    student, teacher = logits[:, :3].requires_grad_()
    assert torch.autograd.gradcheck(function, (student, teacher))


@pytest.mark.parametrize("function", LABELLED)
def test_gradient_with_labels(function, logits):
    student, teacher = logits[:, :3].requires_grad_()
    labels = torch.tensor([0, 4, 9])
    assert torch.autograd.gradcheck(
        lambda s: function(s, teacher.detach(), labels), (student,)
    ) or (function is criteria.wsld)


@pytest.mark.parametrize("build", MODULES)
def test_a_mask_is_dropping_the_positions(build, logits):
    student, teacher = logits
    mask = torch.arange(16) % 3 != 0
    criterion = build()
    assert_close(criterion(student, teacher, mask), criterion(student[mask], teacher[mask]))
    assert_close(criterion(student, teacher, mask.long()), criterion(student, teacher, mask))


@pytest.mark.parametrize("build", MODULES)
def test_what_is_masked_may_be_anything(build, logits):
    student, teacher = (x.clone() for x in logits)
    mask = torch.arange(16) > 3
    expected = build()(student, teacher, mask)
    teacher[:4] = torch.inf
    assert_close(build()(student, teacher, mask), expected)


@pytest.mark.parametrize("build", MODULES)
def test_all_masked_is_zero_with_a_gradient(build, logits):
    student = logits[0].clone().requires_grad_()
    loss = build()(student, logits[1], torch.zeros(16, dtype=torch.bool))
    loss.backward()
    assert loss == 0 and torch.equal(student.grad, torch.zeros_like(student))


@pytest.mark.parametrize("build", MODULES)
def test_sixteen_bits_are_computed_in_thirty_two(build, logits):
    student, teacher = (x.to(torch.bfloat16) for x in logits)
    expected = build()(student.double(), teacher.double())
    for context in (torch.autocast("cpu", torch.bfloat16), torch.enable_grad()):
        with context:
            loss = build()(student, teacher)
        assert loss.dtype == torch.float32
        assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("build", MODULES)
def test_shapes_that_would_broadcast_are_refused(build, logits):
    student, teacher = logits
    for other in (teacher[:, :1], teacher[:1]):
        with pytest.raises((ValueError, TypeCheckError), match=r"same shape|teacher"):
            build()(student, other)


@pytest.mark.parametrize("build", MODULES)
def test_a_mask_of_another_shape_is_refused(build, logits):
    with pytest.raises(ValueError, match=r"one entry per value, shape \(16,\), got \(15,\)"):
        build()(*logits, torch.ones(15, dtype=torch.bool))


@pytest.mark.parametrize("build", MODULES)
@pytest.mark.parametrize("case", ["one row", "equal", "huge", "one-hot"])
def test_degenerate_inputs_give_finite_values_and_gradients(build, case):
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(4, 2, generator=generator)
    teacher = torch.randn(4, 2, generator=generator)
    if case == "one row":
        student, teacher = student[:1], teacher[:1]
    elif case == "equal":
        teacher = student.clone()
    elif case == "huge":
        student, teacher = student.sign() * 1e4, teacher.sign() * -1e4
    else:
        teacher = torch.eye(2).repeat(2, 1) * 1e4
    student.requires_grad_()
    loss = build()(student, teacher)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize("name", TEMPERED)
@pytest.mark.parametrize("temperature", [0.1, 1.0, 100.0])
def test_every_temperature_is_finite(name, temperature, logits):
    student = logits[0].float().mul(100).requires_grad_()
    loss = TEMPERED[name](temperature)(student, logits[1].float().mul(100))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize("build", [*TEMPERED.values(), KnowledgeDistillation])
@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(build, temperature):
    with pytest.raises(ValueError, match=r"`temperatures?` must be positive, got"):
        build(temperature)


@pytest.mark.parametrize("build", [SoftTarget, SoftCrossEntropy])
def test_a_schedule_that_falls_to_zero_is_refused_when_it_does(build, logits):
    criterion = build(lambda: 0.0)
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        criterion(*logits)


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=3),
    classes=st.integers(2, 12),
    temperature=st.floats(0.2, 20.0),
    seed=st.integers(0, 2**31),
)
def test_any_shape_agrees_with_the_definition(shape, classes, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(
        2, *shape, classes, generator=generator, dtype=torch.float64
    ).mul(5)
    p, q = ((x / temperature).exp() for x in (teacher, student))
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    kl = temperature**2 * (p * (p / q).log()).sum(-1)
    assert_close(soft_target(student, teacher, temperature), kl)
    ce = -(temperature**2) * (p * q.log()).sum(-1)
    assert_close(soft_cross_entropy(student, teacher, temperature), ce)
    assert_close(logit_mse(student, teacher), ((student - teacher) ** 2).sum(-1) / classes)
    # In the precision of training it is the same number.
    single = soft_target(student.float(), teacher.float(), temperature)
    assert_close(single.double(), kl, rtol=1e-3, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.floats(-50, 50))
def test_divergences_ignore_a_shift_and_follow_the_batch(seed, shift):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    order = torch.randperm(6, generator=generator)
    for function in (soft_target, soft_cross_entropy, *DIVERGENCES):
        values = function(student, teacher)
        assert_close(function(student + shift, teacher - shift), values)
        assert_close(function(student[order], teacher[order]), values[order])
