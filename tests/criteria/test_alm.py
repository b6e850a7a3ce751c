import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from spans import drawn, in_both
from torch.testing import assert_close

from lightning_distill.criteria import ALM, alm, hard_label


def bernoulli(log_q, log_p, temperature):
    q, p = (math.exp(x / temperature) for x in (log_q, log_p))
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def slowly(arguments, temperature=1.0):
    """Span by span, token by token."""
    values = []
    for row, *positions in in_both(arguments):
        logs = []
        for role, places in zip(("student", "teacher"), positions, strict=True):
            log = arguments[role][row].log_softmax(-1)
            labels = arguments[f"{role}_labels"][row]
            logs.append(sum(log[i, labels[i]].item() for i in places))
        values.append(bernoulli(*logs, temperature))
    return sum(values) / max(len(values), 1)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 4),
    tokens=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    classes=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    temperature=st.sampled_from([0.5, 1.0, 3.0, 100.0]),
    seed=st.integers(0, 2**31),
)
def test_every_span_has_the_product_of_its_tokens(rows, tokens, classes, temperature, seed):
    arguments = drawn(seed, rows, tokens, classes)
    found = ALM(temperature)(**arguments)
    expected = torch.tensor(slowly(arguments, temperature), dtype=torch.float64)
    assert_close(found, expected, rtol=1e-7, atol=1e-10)
    single = {k: v.float() if v.is_floating_point() else v for k, v in arguments.items()}
    assert_close(ALM(temperature)(**single).double(), expected, rtol=1e-3, atol=1e-5)


def test_of_two_tokens_it_is_the_whole_divergence():
    """With as many tokens as outcomes nothing is left out."""
    student, teacher = torch.randn(2, 1, 6, 2, dtype=torch.float64)
    spans, labels = torch.arange(6)[None], torch.randint(0, 2, (1, 6))
    q, p = student.softmax(-1), teacher.softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean()
    assert_close(ALM(1.0)(student, teacher, labels, labels, spans, spans), expected)


def test_it_is_zero_only_where_both_find_the_text_as_likely():
    log_p = torch.tensor([-0.5, -3.0, -200.0])
    assert torch.equal(alm(log_p, log_p, 100.0), torch.zeros(3))
    assert (alm(log_p * 1.1, log_p, 100.0) > 0).all() and (alm(log_p / 1.1, log_p, 100.0) > 0).all()
    # However a text is cut, it is as likely as the product of its tokens.
    given = drawn(5, rows=1, tokens=(3, 1), classes=(4, 6))
    log = given["student"][0].log_softmax(-1)
    labels = torch.tensor([[1, 2, 3]])
    total = log[0, 1] + log[1, 2] + log[2, 3]
    rest = torch.log(-torch.expm1(total)) - math.log(5)
    teacher = torch.cat([total[None], rest.expand(5)])[None, None]
    zeros = torch.zeros(1, 3, dtype=torch.long)
    loss = ALM()(given["student"], teacher, labels, zeros[:, :1], zeros, zeros[:, :1])
    assert_close(loss, torch.zeros_like(loss), atol=1e-12, rtol=0.0)


def test_a_large_temperature_compares_log_probabilities():
    b, a = torch.tensor([0.3, 5.0, 70.0]).double(), torch.tensor([0.9, 4.0, 90.0]).double()
    expected = b - a + a * (a / b).log()
    assert_close(1e5 * alm(-b, -a, 1e5), expected, rtol=1e-2, atol=1e-4)


def test_gradient():
    student, teacher = (-5 * torch.rand(2, 12, dtype=torch.float64) - 0.1).requires_grad_()
    for temperature in (1.0, 100.0):
        assert torch.autograd.gradcheck(
            lambda s, t, x=temperature: alm(s, t, x), (student, teacher)
        )
    arguments = drawn(3)
    logits = arguments.pop("student").requires_grad_()
    assert torch.autograd.gradcheck(lambda s: ALM(2.0)(s, **arguments), (logits,))


def test_a_confident_student_learns_as_the_label_teaches():
    """A teacher that is certain leaves the cross-entropy of the labels."""
    student = torch.randn(1, 5, 6, dtype=torch.float64, requires_grad=True)
    labels, spans = torch.tensor([[0, 1, 2, 3, 4]]), torch.arange(5)[None]
    teacher = 1e4 * torch.nn.functional.one_hot(labels, 6).double()
    loss = ALM(1.0)(student, teacher, labels, labels, spans, spans)
    assert_close(loss, hard_label(student, labels).mean(), rtol=1e-6, atol=1e-6)


def test_only_positions_that_predict_the_span_learn():
    labels = torch.tensor([[3, 1, 2, 0, -100]]), torch.tensor([[1, 1, 2]])
    spans = torch.tensor([[-1, 0, 0, 1, -1]]), torch.tensor([[0, 1, 1]])
    student, teacher = torch.randn(1, 5, 6, requires_grad=True), torch.randn(1, 3, 4)
    ALM()(student, teacher, *labels, *spans).backward()
    assert student.grad.abs().sum(-1).bool().tolist() == [[False, True, True, True, False]]
    first = torch.tensor([[-1, 0, 0, -1, -1]])
    before = ALM()(student, teacher, *labels, first, spans[1])
    for position, matters in enumerate((False, True, True, False, False)):
        other = student.detach().clone()
        other[:, position, 0] += 3
        assert (ALM()(other, teacher, *labels, first, spans[1]) != before) == matters


@pytest.mark.parametrize("count", ["none", "one", "whole"])
def test_degenerate_spans(count):
    given = drawn(1)
    tokens = {"none": 0, "one": 1, "whole": 7}[count]
    for role, classes in (("student", 8), ("teacher", 11)):
        spans = torch.full_like(given[f"{role}_spans"], -1)
        spans[:, :tokens] = 0
        given[f"{role}_spans"] = spans
        given[f"{role}_labels"] = torch.randint(0, classes, spans.shape)
    given["student"].requires_grad_()
    loss = ALM(10.0)(**given)
    loss.backward()
    assert_close(loss.item(), slowly(given, 10.0))
    learnt = given["student"].grad.abs().sum(-1).bool().sum(1)
    assert learnt.tolist() == [tokens] * 3


def test_what_no_longer_fits_in_the_precision_stays_finite():
    student = torch.tensor([0.0, -1e-9, -1e30, -80.0, -1e4, 0.0], requires_grad=True)
    teacher = torch.tensor([-1e-9, 0.0, -1e30, -1e4, -1e-9, -torch.inf])
    for temperature in (0.1, 1.0, 100.0):
        values = alm(student, teacher, temperature)
        (gradient,) = torch.autograd.grad(values.sum(), student)
        assert values.isfinite().all() and gradient.isfinite().all()
    ruled_out = torch.tensor([-torch.inf, -torch.inf])
    assert alm(ruled_out, torch.tensor([-1.0, -torch.inf]), 1.0).tolist() == [torch.inf, 0.0]


def test_it_says_over_what_it_is_a_mean():
    given = drawn(4)
    counted = ALM().counted(**{k: v for k, v in given.items() if "spans" in k})
    assert int(counted.sum()) == len(list(in_both(given))) > 0
    assert (given["student_spans"][counted] >= 0).all()


def test_what_does_not_go_together_is_refused(unchecked_types):
    given = drawn(0)
    labels = given["student_labels"]
    with pytest.raises(ValueError, match=r"`student_labels` must have one entry .*\(3, 9\), got"):
        ALM()(**{**given, "student_labels": labels[:, :-1]})
    with pytest.raises(ValueError, match=r"of the student has a span and no label \(-100\)"):
        ALM()(**{**given, "student_labels": torch.full_like(labels, -100)})
    with pytest.raises(ValueError, match=r"of the student has a span and label 8,.*has 8 tokens"):
        ALM()(**{**given, "student_labels": torch.full_like(labels, 8)})
    with pytest.raises(ValueError, match=r"a log-probability per span, got \(2,\) and \(3,\)"):
        alm(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="`temperature` must be positive, got -1"):
        ALM(-1.0)
