import sys

import pytest
import torch
from hypothesis import given, settings, strategies as st
from spans import drawn, in_both, without_labels
from torch.testing import assert_close

from lightning_distill.criteria import total_variation, ULD, uld
from lightning_distill.criteria.uld import uld_with_gradient

# The name in its package is that of the function.
MODULE = sys.modules["lightning_distill.criteria.uld"]


def slowly(arguments, temperature=1.0):
    """Span by span, class by class."""
    values = []
    for row, own, other in in_both(arguments):
        q = sorted((arguments["student"][row, own[0]] / temperature).softmax(-1).tolist())[::-1]
        p = sorted((arguments["teacher"][row, other[0]] / temperature).softmax(-1).tolist())[::-1]
        classes = max(len(q), len(p))
        q, p = (x + [0.0] * (classes - len(x)) for x in (q, p))
        values.append(sum(abs(a - b) for a, b in zip(q, p, strict=True)))
    return sum(values) / max(len(values), 1)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 4),
    tokens=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    classes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    chunk=st.sampled_from([1, 40, 10**6]),
    seed=st.integers(0, 2**31),
)
def test_every_span_is_compared_where_its_first_token_is_predicted(
    rows, tokens, classes, temperature, chunk, seed
):
    arguments = without_labels(drawn(seed, rows, tokens, classes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "CHUNK", chunk)
        found = ULD(temperature)(**arguments)
    expected = torch.tensor(slowly(arguments, temperature), dtype=torch.float64)
    assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_the_smaller_vocabulary_is_filled_with_zeros():
    student, teacher = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.1, 0.9]).log()
    expected = torch.tensor(0.4 + 0.2 + 0.2)
    assert_close(uld(student, teacher), expected)
    assert_close(uld(teacher, student), expected)


def test_which_token_is_which_does_not_matter(logits):
    student, teacher = logits
    order = torch.randperm(10)
    assert_close(uld(student[:, order], teacher), uld(student, teacher))
    assert_close(uld(student, student[:, order]), torch.zeros(16, dtype=torch.float64))
    # No matching of tokens is closer.
    assert (uld(student, teacher) <= 2 * total_variation(student, teacher[:, order])).all()


def test_it_ends_at_two_for_one_token_against_very_many():
    sure, open_ = torch.tensor([40.0] + [0.0] * 9999), torch.zeros(10000)
    assert_close(uld(sure, open_), torch.tensor(2.0), atol=1e-3, rtol=0.0)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_its_own_gradient_is_that_of_autograd(logits, temperature):
    student, teacher = logits[0].requires_grad_(), torch.randn(16, 13).double()
    for other in (teacher, teacher[:, :7]):
        values, gradient = uld_with_gradient(student, other, temperature)
        expected = uld(student, other, temperature)
        assert_close(values, expected)
        (wanted,) = torch.autograd.grad(expected.sum(), student)
        assert_close(gradient, wanted)


@pytest.mark.parametrize("chunk", [1, 10**6])
def test_gradient_of_the_mean(monkeypatch, chunk):
    monkeypatch.setattr(MODULE, "CHUNK", chunk)
    arguments = without_labels(drawn(3))
    student = arguments.pop("student").requires_grad_()
    assert torch.autograd.gradcheck(lambda s: 3 * ULD(2.0)(s, **arguments), (student,))


def test_only_the_position_that_predicts_the_first_token_learns():
    spans = torch.tensor([[-1, 0, 0, 1, -1]]), torch.tensor([[0, 1, 1]])
    student = torch.randn(1, 5, 6, requires_grad=True)
    ULD()(student, torch.randn(1, 3, 4), *spans).backward()
    assert student.grad.abs().sum(-1).bool().tolist() == [[False, True, False, True, False]]
    # And only that of the teacher is looked at: 0 for span 0, 1 for span 1.
    teacher = torch.randn(1, 3, 4)
    before = ULD()(student, teacher, *spans)
    for position, matters in enumerate((True, True, False)):
        other = teacher.clone()
        other[:, position, 0] += 3
        assert (ULD()(student, other, *spans) != before) == matters


def test_spans_of_one_side_only_do_not_count():
    student, teacher = torch.randn(1, 4, 6), torch.randn(1, 3, 6)
    both = ULD()(student, teacher, torch.tensor([[0, 1, 2, 3]]), torch.tensor([[0, -1, 2]]))
    expected = uld(student[0, [0, 2]], teacher[0, [0, 2]]).mean()
    assert_close(both, expected)


@pytest.mark.parametrize("learns", [True, False])
def test_without_a_span_it_is_zero_with_a_gradient(learns):
    student = torch.randn(2, 3, 4, requires_grad=learns)
    nothing = torch.full((2, 3), -1)
    for teacher_spans in (nothing, nothing + 1):
        loss = ULD()(student, torch.randn(2, 3, 5), nothing, teacher_spans)
        assert loss == 0
        if learns:
            loss.backward()
            assert torch.equal(student.grad, torch.zeros(2, 3, 4))


def test_its_sorted_copies_are_few_at_a_time(monkeypatch):
    seen = []
    real = MODULE.uld_with_gradient

    def watched(student, teacher, temperature):
        seen.append(student.numel() + teacher.numel())
        return real(student, teacher, temperature)

    monkeypatch.setattr(MODULE, "uld_with_gradient", watched)
    monkeypatch.setattr(MODULE, "CHUNK", 500)
    spans = torch.arange(40).expand(2, 40)
    student = torch.randn(2, 40, 60, requires_grad=True)
    ULD()(student, torch.randn(2, 40, 40), spans, spans)
    assert max(seen) == 500 and sum(seen) == 80 * 100


def test_it_says_over_what_it_is_a_mean():
    spans = torch.tensor([[-1, 0, 0, 1, -1], [0, 1, 1, 1, 2]])
    expected = [[False, True, False, True, False], [True, True, False, False, True]]
    assert ULD().counted(student_spans=spans, teacher_spans=spans).tolist() == expected
    less = torch.tensor([[0, -1, -1], [1, 2, 2]])
    expected = [[False, True, False, False, False], [False, True, False, False, True]]
    assert ULD().counted(student_spans=spans, teacher_spans=less, labels=None).tolist() == expected
    assert ULD().counted(labels=None) is None


def test_half_precision_keeps_gradients_that_the_scale_of_the_loss_brings_up():
    spans = torch.zeros(1, 1, dtype=torch.long)
    teacher = torch.zeros(1, 1, 4)
    logits = torch.tensor([[[0.0, -18.0, -18.5, -19.0]]])
    found = []
    for kind in (torch.float16, torch.float32):
        student = logits.to(kind).requires_grad_()
        (2.0**14 * ULD()(student, teacher, spans, spans)).backward()
        found.append(student.grad.float())
    rare = [gradient[..., 1:] for gradient in found]
    assert ((rare[1] != 0) & (rare[1].abs() / 2**14 < 6e-8)).all()
    assert_close(*rare, rtol=1e-2, atol=0.0)


def test_what_does_not_go_together_is_refused(unchecked_types):
    given = without_labels(drawn(0))
    with pytest.raises(
        ValueError, match=r"student's logits must be .*got \(3, 9, 8\) and \(3, 7\)"
    ):
        ULD()(**{**given, "student_spans": given["teacher_spans"]})
    with pytest.raises(ValueError, match=r"teacher's logits must be .*got \(7, 11\) and \(7,\)"):
        ULD()(
            **{**given, "teacher": given["teacher"][0], "teacher_spans": given["teacher_spans"][0]}
        )
    with pytest.raises(ValueError, match="`student_spans` must be whole numbers"):
        ULD()(**{**given, "student_spans": given["student_spans"].float()})
    less = {"teacher": given["teacher"][:2], "teacher_spans": given["teacher_spans"][:2]}
    with pytest.raises(ValueError, match="must read the same rows, got 3 and 2"):
        ULD()(**{**given, **less})
    with pytest.raises(ValueError, match=r"same positions, got logits of shapes \(3, 9, 8\)"):
        uld(given["student"], given["teacher"])
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        ULD(lambda: 0.0)(**given)
