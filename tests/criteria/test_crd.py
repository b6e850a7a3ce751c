import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.criteria import CRD, crd


def unit(*shape):
    return F.normalize(torch.randn(*shape).double(), dim=-1)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 6), st.floats(-3, 5))
def test_agrees_with_the_definition(batch, dim, others, level):
    student, teacher, rest = unit(batch, dim), unit(batch, dim), unit(others, dim)
    times = torch.randint(0, 4, (batch, others)).double()

    def h(a, b):
        score = math.exp(float(a @ b) / 0.5)
        return score / (score + math.exp(level))

    expected = [
        -math.log(h(student[i], teacher[i]))
        - sum(float(times[i, k]) * math.log(1 - h(student[i], rest[k])) for k in range(others))
        for i in range(batch)
    ]
    found = crd(student, teacher, rest, times, level, 0.5)
    assert_close(found, torch.tensor(expected).double())


def prepared(samples=9, width=5, **options):
    torch.manual_seed(0)
    criterion = CRD(samples, **{"size": 4, "negatives": 20, "temperature": 0.4, **options})
    student, teacher = torch.randn(samples, 3).double(), torch.randn(samples, width).double()
    criterion.prepare(student, teacher, torch.arange(samples))
    return criterion, student, teacher


class Naive:
    """The authors' program, in loops, where each other sample is drawn as often as is expected."""

    def __init__(self, criterion):
        self.c = criterion
        self.banks = [criterion.student_bank.clone(), criterion.teacher_bank.clone()]
        self.z = None

    @torch.no_grad()
    def loss(self, student, teacher, rows, classes=None):
        c, n, k = self.c, self.c.samples, self.c.negatives
        s, t = embedded(c, student, teacher)
        exps = []
        for anchors, bank in ((s, self.banks[1]), (t, self.banks[0])):
            of_batch = []
            for a, row in zip(anchors, rows, strict=True):
                others = [
                    j for j in range(n) if j != row and not (classes and classes[j] == classes[row])
                ]
                score = [math.exp(float(a @ bank[j]) / c.temperature) for j in range(n)]
                of_batch.append((score[row], [(k / len(others), score[j]) for j in others]))
            exps.append(of_batch)
        if self.z is None:
            self.z = [
                n
                * sum(own + sum(w * e for w, e in rest) for own, rest in batch)
                / (len(rows) * (1 + k))
                for batch in exps
            ]
        total = 0.0
        for batch, z in zip(exps, self.z, strict=True):
            for own, rest in batch:
                total -= math.log((own / z) / (own / z + k / n))
                total -= sum(w * math.log((k / n) / (e / z + k / n)) for w, e in rest)
        for x, bank in zip((s, t), self.banks, strict=True):
            for value, row in zip(x.detach(), rows, strict=True):
                bank[row] = F.normalize(c.momentum * bank[row] + (1 - c.momentum) * value, dim=0)
        return total / len(rows)


def test_agrees_with_the_authors_program_over_several_batches():
    criterion, student, teacher = prepared(momentum=0.3)
    naive = Naive(criterion)
    for rows in ([0, 4, 2], [8, 0, 1], [3], [5, 6, 7, 0]):
        found = criterion(student[rows], teacher[rows], torch.tensor(rows))
        assert found.item() == pytest.approx(naive.loss(student[rows], teacher[rows], rows))
        assert_close(criterion.student_bank, naive.banks[0])
        assert_close(criterion.teacher_bank, naive.banks[1])
    z = (criterion.levels.exp() * 9 / 20).tolist()
    assert z == pytest.approx(naive.z)


def test_with_labels_others_are_of_other_classes():
    criterion, student, teacher = prepared()
    classes = [0, 1, 2, 0, 1, 2, 0, 1, 2]
    everyone, labels = torch.arange(9), torch.tensor(classes)
    # All rows have been seen once, so that their classes are known.
    criterion(student, teacher, everyone, labels)
    assert criterion.classes.tolist() == classes
    naive = Naive(criterion)
    naive.z = (criterion.levels.exp() * 9 / 20).tolist()
    rows = [1, 5, 6]
    found = criterion(student[rows], teacher[rows], torch.tensor(rows), labels[rows])
    expected = naive.loss(student[rows], teacher[rows], rows, classes)
    assert found.item() == pytest.approx(expected)


def test_a_sample_without_a_label_has_all_others():
    criterion, student, teacher = prepared()
    other, _, _ = prepared()
    rows = torch.arange(9)
    unlabelled = torch.full((9,), -100)
    for _ in range(2):
        assert criterion(student, teacher, rows, unlabelled) == other(student, teacher, rows)


def embedded(criterion, student, teacher):
    parts = (criterion.student_embedding, criterion.teacher_embedding)
    pairs = zip((student, teacher), parts, strict=True)
    return [F.normalize(x @ part.weight.T + part.bias, dim=1) for x, part in pairs]


def test_a_draw_has_the_expectation_of_all():
    criterion, student, teacher = prepared(negatives=8, momentum=1.0)
    criterion.levels.fill_(1.0)
    rows = torch.tensor([2, 5])
    found = []
    for seed in range(300):
        torch.manual_seed(seed)
        found.append(criterion(student[rows], teacher[rows], rows).detach())
    found = torch.stack(found)
    s, t = embedded(criterion, student[rows], teacher[rows])
    banks = criterion.student_bank, criterion.teacher_bank
    # Eight draws from eight others: each once.
    times = (torch.arange(9) != rows[:, None]).double()
    expected = crd(s, banks[1][rows], banks[1], times, 1.0, 0.4)
    expected = (expected + crd(t, banks[0][rows], banks[0], times, 1.0, 0.4)).mean()
    assert found.std() > 0
    error = 4 * float(found.std()) / 300**0.5
    assert float(found.mean()) == pytest.approx(expected.item(), abs=error)


def test_where_all_embeddings_are_equal_it_is_chance():
    criterion, student, teacher = prepared(negatives=20)
    with torch.no_grad():
        for bank in (criterion.student_bank, criterion.teacher_bank):
            bank.copy_(bank[:1].clone())
        for part in (criterion.student_embedding, criterion.teacher_embedding):
            part.weight.zero_()
    found = criterion(student, teacher, torch.arange(9))
    # One of 1 + K is the sample itself.
    expected = 2 * (math.log(21) + 20 * math.log(21 / 20))
    assert found.item() == pytest.approx(expected)


def test_padding_is_no_sample_and_a_sample_that_comes_twice_is_remembered_once():
    criterion, student, teacher = prepared()
    other, _, _ = prepared()
    rows = torch.tensor([4, -1, 2, -1])
    keep = rows >= 0
    found = criterion(student[:4], teacher[:4], rows)
    assert_close(found, other(student[:4][keep], teacher[:4][keep], rows[keep]))
    assert torch.equal(criterion.student_bank, other.student_bank)
    before = criterion.student_bank[3].clone()
    part = criterion.student_embedding
    seen = F.normalize(student[:2] @ part.weight.T + part.bias, dim=1).mean(0)
    criterion(student[:2], teacher[:2], torch.tensor([3, 3]))
    assert_close(criterion.student_bank[3], F.normalize((before + seen) / 2, dim=0))


def test_evaluation_compares_with_the_sample_itself_and_its_rows_are_others():
    criterion, student, teacher = prepared(negatives=5)
    criterion(student, teacher, torch.arange(9))
    criterion.eval()
    s, t = embedded(criterion, student[:2], teacher[:2])
    chosen, times = [0, 1, 3, 5, 7], torch.ones(2, 5).double()
    expected = crd(s, t, criterion.teacher_bank[chosen], times, criterion.levels[0], 0.4)
    expected = expected + crd(t, s, criterion.student_bank[chosen], times, criterion.levels[1], 0.4)
    found = criterion(student[:2], teacher[:2], torch.tensor([1000, 0]))
    assert_close(found, expected.mean())


def test_what_cannot_be_is_refused():
    for options, words in (
        ({"samples": None}, "`samples` must be a whole number of at least 1, got None"),
        ({"samples": 5, "negatives": 0}, "`negatives` must be a whole number of at least 1, got 0"),
        ({"samples": 5, "size": 1.5}, "`size` must be a whole number of at least 1, got 1.5"),
        ({"samples": 5, "temperature": 0.0}, "`temperature` must be positive, got 0"),
        ({"samples": 5, "momentum": 2.0}, "`momentum` must lie between 0 and 1, got 2"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"{words}|type"):
            CRD(**options)
    criterion, student, teacher = prepared()
    with pytest.raises(ValueError, match="`rows` must lie below samples=9, got 9. Set `samples`"):
        criterion(student[:1], teacher[:1], torch.tensor([9]))
    with pytest.raises((ValueError, TypeError), match="one class per sample|labels"):
        criterion(student[:2], teacher[:2], torch.arange(2), torch.zeros(2, 3).long())
