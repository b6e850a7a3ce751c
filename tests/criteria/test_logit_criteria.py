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
from lightning_distill.criteria._check import labelled


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


class WithSpans(nn.Module):
    """A criterion between spans, given positions that are a span each."""

    def __init__(self, criterion):
        super().__init__()
        self.criterion = criterion

    def forward(self, student, teacher, mask=None):
        if student.shape != teacher.shape:
            raise ValueError("must have the same shape")
        labels, counted = labelled(teacher.nan_to_num().argmax(-1), mask)
        spans = torch.arange(student.shape[-2]).expand(labels.shape).masked_fill(~counted, -1)
        if student.dim() == 2:
            student, teacher, labels, spans = (x[None] for x in (student, teacher, labels, spans))
        of_labels = [labels, labels] if isinstance(self.criterion, criteria.ALM) else []
        return self.criterion(student, teacher, *of_labels, spans, spans)


DIVERGENCES = [
    criteria.reverse_kl,
    criteria.jsd,
    criteria.skew_kl,
    criteria.skew_reverse_kl,
    criteria.total_variation,
    criteria.listwise_kl,
    criteria.uld,
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
    "ULD": lambda t: WithSpans(criteria.ULD(t)),
    "ALM": lambda t: WithSpans(criteria.ALM(t)),
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
# Which logits are compared as they are, and which are not 0 where student and teacher agree.
LEVELS = {"LogitMSE", "Hint", "Hint cosine"}
CROSS_ENTROPIES = {"SoftCrossEntropy", "NKD", "WSLD", "OFA", "TfKD"}
MODULES = [pytest.param(build, id=name) for name, build in (PER_SAMPLE | RELATIONAL).items()]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradient(function, logits):
    student, teacher = logits[:, :3].requires_grad_()
    assert torch.autograd.gradcheck(function, (student, teacher))


@pytest.mark.parametrize("function", LABELLED)
def test_gradient_with_labels(function, logits):
    student, teacher = logits[:, :3].requires_grad_()
    labels = torch.tensor([0, 4, 9])
    assert torch.autograd.gradcheck(lambda s: function(s, teacher.detach(), labels), (student,))


# The weight of WSLD and the teacher of TAID stop the gradient; their own tests look at that.
FULL_GRADIENT = [p for p in MODULES if p.id not in ("WSLD", "TAID")]


@pytest.mark.parametrize("build", FULL_GRADIENT)
def test_gradient_of_the_mean(build, logits):
    student, teacher = logits[:, :3]
    mask = torch.tensor([True, False, True])
    for counted in (None, mask):
        check = torch.autograd.gradcheck
        assert check(lambda s, m=counted: build()(s, teacher, m), (student.requires_grad_(),))


@pytest.mark.parametrize("build", MODULES)
def test_tokens_are_samples(build, logits):
    """Logits (B, T, V) with labels and masks (B, T)."""
    student, teacher = logits
    mask = torch.arange(16) % 5 != 2
    tokens = [x.view(2, 8, 10) for x in logits]
    assert_close(build()(*tokens), build()(student, teacher))
    assert_close(build()(*tokens, mask.view(2, 8)), build()(student, teacher, mask))


@pytest.mark.parametrize("build", MODULES)
def test_the_order_of_the_batch_does_not_matter(build, logits):
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    assert_close(build()(*logits[:, order]), build()(*logits))


@pytest.mark.parametrize("build", [p for p in MODULES if p.id not in LEVELS])
def test_the_level_of_the_logits_does_not_matter(build, logits):
    student, teacher = logits
    shift = 7 * torch.arange(16.0, dtype=torch.float64)[:, None]
    assert_close(build()(student + shift, teacher - 2 * shift), build()(student, teacher))


@pytest.mark.parametrize("build", [p for p in MODULES if p.id not in CROSS_ENTROPIES])
def test_an_equal_student_has_no_loss_and_no_gradient(build, logits):
    student = logits[0].clone().requires_grad_()
    loss = build()(student, logits[0])
    loss.backward()
    assert_close(loss, torch.zeros_like(loss), atol=1e-10, rtol=0.0)
    assert_close(student.grad, torch.zeros_like(student), atol=1e-7, rtol=0.0)


@pytest.mark.parametrize("build", [SoftCrossEntropy, PER_SAMPLE["WSLD"]])
def test_an_equal_student_has_no_gradient_of_cross_entropy(build, logits):
    student = logits[0].clone().requires_grad_()
    build()(student, logits[0]).backward()
    assert_close(student.grad, torch.zeros_like(student), atol=1e-12, rtol=0.0)


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
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("case", ["one row", "equal", "all equal", "huge", "one-hot", "ruled out"])
def test_degenerate_inputs_give_finite_values_and_gradients(build, case, classes):
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(4, classes, generator=generator)
    teacher = torch.randn(4, classes, generator=generator)
    if case == "one row":
        student, teacher = student[:1], teacher[:1]
    elif case == "equal":
        teacher = student.clone()
    elif case == "all equal":
        student, teacher = torch.zeros(4, classes), torch.zeros(4, classes)
    elif case == "huge":
        student, teacher = student.sign() * 1e4, teacher.sign() * -1e4
    elif case == "one-hot":
        teacher = torch.eye(classes)[torch.tensor([0, 1, 0, 1])] * 1e4
    else:
        teacher = torch.full((4, classes), -1e4)
        teacher[:, 0] = 1e4
    for context in (torch.enable_grad(), torch.autocast("cpu", torch.bfloat16)):
        inputs = student.clone().requires_grad_()
        with context:
            loss = build()(inputs, teacher)
        loss.backward()
        assert loss.isfinite() and inputs.grad.isfinite().all()


@pytest.mark.parametrize("name", TEMPERED)
@pytest.mark.parametrize("temperature", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_every_temperature_is_finite(name, temperature, scale, logits):
    student = logits[0].float().mul(scale).requires_grad_()
    loss = TEMPERED[name](temperature)(student, logits[1].float().mul(scale))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize(
    "function", [soft_target, soft_cross_entropy, criteria.listwise_kl, criteria.reverse_kl]
)
def test_what_is_possible_and_ruled_out_is_infinite_however_unlikely(function):
    sure = torch.tensor([[9.0, 0.0, -9.0], [1.0, 2.0, 3.0]])
    without = torch.tensor([[0.0, 0.0, -torch.inf], [1.0, 2.0, 3.0]])
    models = (sure, without) if function is criteria.reverse_kl else (without, sure)
    found = function(*models, 1.0)
    assert found[0] == torch.inf and found[1].isfinite()


RULED_OUT = ["SoftTarget", "SoftCrossEntropy", "ReverseKL", "JSD", "SkewKL", "SkewReverseKL"]
RULED_OUT += ["TotalVariation", "ListwiseKL", "DIST", "MLKD", "DKD", "NKD", "WSLD", "ULD", "ALM"]
INFINITE = {
    "student": {
        "SoftTarget",
        "SoftCrossEntropy",
        "ListwiseKL",
        "MLKD",
        "DKD",
        "NKD",
        "WSLD",
        "ALM",
    },
    "teacher": {"ReverseKL"},
}


@pytest.mark.parametrize("name", RULED_OUT)
@pytest.mark.parametrize("by", ["student", "teacher", "both"])
def test_classes_that_are_ruled_out_give_no_nan(name, by, logits):
    """A logit of minus infinity, as generation masks have them."""
    student, teacher = (x.clone() for x in logits)
    for x, whose in ((student, "student"), (teacher, "teacher")):
        if by in (whose, "both"):
            x[:, 4] = -torch.inf
    student.requires_grad_()
    loss = TEMPERED[name](2.0)(student, teacher)
    loss.backward()
    if name in INFINITE.get(by, ()):
        assert loss == torch.inf
        return
    assert loss.isfinite() and student.grad.isfinite().all()
    if by == "both" and name not in ("DIST", "MLKD"):
        kept = [c for c in range(10) if c != 4]
        expected = TEMPERED[name](2.0)(student[:, kept], teacher[:, kept])
        assert_close(loss, expected)


SEVEN = {
    name: TEMPERED[name]
    for name in ("SoftTarget", "ReverseKL", "JSD", "SkewKL", "SkewReverseKL", "TotalVariation")
}
SEVEN["TAID"] = lambda t: criteria.TAID(0.5, step=0.0)


@pytest.mark.parametrize("name", SEVEN)
@pytest.mark.parametrize("by", ["student", "teacher", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ruled_out_classes_give_no_nan_however_steep_the_loss_is(name, by, dtype, logits):
    """The largest number times what comes from above must not be infinite on its way to a 0."""
    student, teacher = (x.to(dtype) for x in logits)
    for x, whose in ((student, "student"), (teacher, "teacher")):
        if by in (whose, "both"):
            x[:, 4] = -torch.inf
    student.requires_grad_()
    criterion = SEVEN[name](4.0)
    values, gradient = criterion.with_gradient()(student.detach(), teacher)
    loss = criterion(student, teacher)
    (found,) = torch.autograd.grad(1000 * loss, student)
    assert found.isfinite().all() and gradient.isfinite().all()
    assert_close(loss, values.mean())
    if loss.isfinite():
        assert_close(found, 1000 / len(student) * gradient, rtol=1e-4, atol=1e-4)
    if by == "both":
        kept = [c for c in range(10) if c != 4]
        few = student.detach()[:, kept].requires_grad_()
        (expected,) = torch.autograd.grad(1000 * criterion(few, teacher[:, kept]), few)
        assert_close(found[:, kept], expected, rtol=1e-4, atol=1e-4)


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
