import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.criteria import queue_similarity, QueueSimilarity


def unit(*shape):
    return F.normalize(torch.randn(*shape).double(), dim=-1)


def naive(student, teacher, queue, student_temperature, teacher_temperature, own):
    values = []
    student = student.detach()
    for s, t in zip(student, teacher, strict=True):
        entries = [*queue, *([t] if own else [])]
        q = [math.exp(float(s @ e) / student_temperature) for e in entries]
        p = [math.exp(float(t @ e) / teacher_temperature) for e in entries]
        q, p = [v / sum(q) for v in q], [v / sum(p) for v in p]
        values.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return torch.tensor(values).double()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 6), st.booleans())
def test_agrees_with_the_definition(batch, dim, entries, own):
    student, teacher, queue = unit(batch, dim), unit(batch, dim), unit(entries, dim)
    expected = naive(student, teacher, queue, 0.5, 0.2, own)
    assert_close(queue_similarity(student, teacher, queue, 0.5, 0.2, own), expected)


def batches():
    torch.manual_seed(0)
    return [(torch.randn(n, 3).double(), torch.randn(n, 4).double()) for n in (2, 3, 4, 9, 1)]


@pytest.mark.parametrize("variant", ["seed", "compress", "lightly"])
def test_the_last_embeddings_of_the_teacher_are_compared_with(variant):
    criterion = QueueSimilarity(7, 0.3, 0.2, variant)
    seen: list[torch.Tensor] = []
    for i, (student, teacher) in enumerate(batches()):
        if i == 0:
            criterion.prepare(student, teacher)
        s = F.normalize(student @ criterion.projector.weight.T + criterion.projector.bias, dim=1)
        t = F.normalize(teacher, dim=1)
        # Evaluation sees as much as training, and leaves nothing behind.
        entries = (seen + list(t)) if variant == "lightly" else seen or list(t)
        own = variant == "seed" and i > 0
        in_evaluation = naive(s, t, entries, 0.3, 0.2, own)
        assert_close(criterion.eval()(student, teacher), in_evaluation.mean())
        if variant == "lightly":
            seen = (seen + list(t))[-7:]
        expected = naive(s, t, seen or list(t), 0.3, 0.2, own).mean()
        if variant != "lightly":
            seen = (seen + list(t))[-7:]
        assert_close(criterion.train()(student, teacher), expected)


def test_a_student_that_embeds_as_the_teacher_does_is_zero_at_the_same_temperature():
    criterion = QueueSimilarity(20, 0.1, 0.1)
    criterion.prepare(torch.randn(5, 4), torch.randn(5, 4))
    with torch.no_grad():
        criterion.projector.weight.copy_(torch.eye(4))
        criterion.projector.bias.zero_()
    for _ in range(3):
        x = torch.randn(5, 4)
        assert_close(criterion(3 * x, x), torch.zeros(()), atol=1e-6, rtol=0.0)


def test_with_an_even_teacher_it_is_the_distance_from_the_even_distribution():
    student, teacher, queue = unit(3, 4), unit(3, 4), unit(6, 4)
    log_q = F.log_softmax(student @ queue.T / 0.2, dim=1)
    expected = -math.log(6) - log_q.mean(dim=1)
    assert_close(queue_similarity(student, teacher, queue, 0.2, 1e9, own=False), expected)


def test_while_the_queue_is_empty_the_batch_stands_in_for_it():
    for variant in ("seed", "compress", "lightly"):
        criterion = QueueSimilarity(8, variant=variant)
        student, teacher = batches()[1]
        criterion.prepare(student, teacher)
        loss = criterion.eval()(student.requires_grad_(), teacher)
        assert loss > 0 and int(criterion.seen) == 0
        assert torch.autograd.grad(loss, student)[0].any()
        assert_close(criterion.train()(student, teacher), loss)
        assert int(criterion.seen) == 3


def test_temperatures_may_be_schedules():
    student, teacher = batches()[2]
    criterion = QueueSimilarity(8, lambda: 0.3, lambda: 0.2, "lightly")
    criterion.prepare(student, teacher)
    other = QueueSimilarity(8, 0.3, 0.2, "lightly")
    other.prepare(student, teacher)
    other.load_state_dict(criterion.state_dict())
    assert criterion(student, teacher) == other(student, teacher)


def test_what_cannot_be_is_refused():
    for options, words in (
        ({"size": 0}, "`size` must be at least 1, got 0"),
        ({"student_temperature": 0.0}, "`student_temperature` must be positive, got 0"),
        ({"teacher_temperature": -1.0}, "`teacher_temperature` must be positive, got -1"),
        ({"variant": "sed"}, "`variant` must be one of seed, compress, lightly, got 'sed'"),
    ):
        with pytest.raises(ValueError, match=words):
            QueueSimilarity(**options)
    criterion = QueueSimilarity()
    with pytest.raises(ValueError, match="student's features must be vectors .*layer_input"):
        criterion.prepare(torch.randn(2, 3), torch.randn(2, 4))
        criterion(torch.randn(2, 3, 5), torch.randn(2, 4))
