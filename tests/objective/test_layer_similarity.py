from itertools import combinations, combinations_with_replacement

import pytest
import torch
from hypothesis import given, strategies as st
from torch.testing import assert_close

from lightning_distill import Objective, Term
from lightning_distill.criteria import Hint
from lightning_distill.criteria.cka import cka
from lightning_distill.models.source import Source
from lightning_distill.objective.layer_similarity import layer_similarity, most_similar_pairs

STUDENT, TEACHER = (
    Source.parse("student.hidden_states[*]"),
    Source.parse("teacher.hidden_states[*]"),
)
MASK = Source.parse("batch.attention_mask")
INPUTS = {"student": str(STUDENT), "teacher": str(TEACHER), "mask": str(MASK)}


def layers(count, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 7, width, generator=generator).double() for _ in range(count)]


def test_it_is_the_alignment_of_each_layer_with_each():
    students, teachers = layers(3, 5), layers(4, 9, seed=1)
    mask = torch.rand(4, 7, generator=torch.Generator().manual_seed(0)) > 0.3
    rows = layer_similarity(students, teachers, mask)
    expected = [[1 - cka(s[mask], t[mask]) for t in teachers] for s in students]
    assert_close(rows, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)
    # Attentions have no dimension of tokens alone: a row of the batch is a sample.
    maps = [torch.rand(4, 2, 7, 7).double() for _ in range(2)]
    expected = [[1 - cka(s.flatten(1), t.flatten(1)) for t in maps] for s in maps]
    found = layer_similarity(maps, maps, torch.ones(4, 3).bool())
    assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


def test_what_is_rotated_and_scaled_is_the_same_and_what_is_constant_is_like_nothing():
    (x,) = layers(1, 6)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6).double())
    found = layer_similarity([x], [1e6 * x @ rotation, 1e-6 * x, torch.ones_like(x)])
    assert_close(found, torch.tensor([[1.0, 1.0, 0.0]]).double(), atol=1e-9, rtol=0)


def test_of_many_tokens_some_are_looked_at():
    x = torch.randn(64, 64, 8)
    mask = torch.ones(64, 64).bool()
    found = layer_similarity([x.bfloat16()], [x, torch.randn(64, 64, 8)], mask)
    assert found[0, 0] > 0.999 and found[0, 1] < 0.1


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
def test_the_pairs_are_those_of_all_in_order_that_are_most_alike(students, teachers, seed):
    matrix = torch.rand(students, teachers, generator=torch.Generator().manual_seed(seed))
    ways = combinations if students <= teachers else combinations_with_replacement
    sums = [
        sum(float(matrix[s, t]) for s, t in enumerate(chosen))
        for chosen in ways(range(teachers), students)
    ]
    pairs = most_similar_pairs(matrix)
    assert [s for s, _ in pairs] == list(range(students))
    taken = [t for _, t in pairs]
    assert tuple(taken) in list(ways(range(teachers), students))
    assert sum(float(matrix[s, t]) for s, t in pairs) == pytest.approx(max(sums))


def test_of_equal_choices_the_lowest():
    assert most_similar_pairs(torch.ones(2, 4)) == [(0, 0), (1, 1)]


def values(students, teachers):
    return {STUDENT: students, TEACHER: teachers, MASK: torch.ones(4, 7).bool()}


def prepared(students, teachers, looks=(), **settings):
    term = Term(Hint(), INPUTS, mapping="auto", **settings)
    objective = Objective({"hint": term})
    for more in looks:
        objective.look(values(*more))
    own = [x.clone().requires_grad_() for x in students]
    objective.prepare(values(own, teachers), {"student": [], "teacher": []})
    return objective, own


def test_a_term_compares_the_layers_that_are_alike():
    teachers = layers(5, 6)
    students = [teachers[1] * 2, teachers[4] + 0.01]
    objective, own = prepared(students, teachers)
    term = objective.terms["hint"]
    pairs = [(str(p["student"]), str(p["teacher"])) for p in term.pairs]
    assert pairs == [
        ("student.hidden_states[0]", "teacher.hidden_states[1]"),
        ("student.hidden_states[1]", "teacher.hidden_states[4]"),
    ]
    single = {Source.parse(f"student.hidden_states[{i}]"): x for i, x in enumerate(own)}
    single |= {Source.parse(f"teacher.hidden_states[{i}]"): x for i, x in enumerate(teachers)}
    expected = [((own[0] - teachers[1]) ** 2).mean(), ((own[1] - teachers[4]) ** 2).mean()]
    assert_close(objective({**single, MASK: torch.ones(4, 7).bool()})["hint"], sum(expected) / 2)
    found = objective.similar_layers()["hint"]
    assert "student.hidden_states[1] learns from teacher.hidden_states[4] (1.00)" in (
        found.describe()
    )


def test_the_mean_over_several_batches_counts():
    teachers, others = layers(3, 6), layers(3, 6, seed=5)
    # One batch is for the second layer, and two are for the third.
    looks = [([others[2]], others), ([teachers[2]], teachers)]
    objective, _ = prepared([teachers[1]], teachers, looks)
    assert [str(p["teacher"]) for p in objective.terms["hint"].pairs] == [
        "teacher.hidden_states[2]"
    ]


def test_a_checkpoint_keeps_the_pairs():
    teachers = layers(3, 6)
    one, _ = prepared([teachers[0]], teachers)
    two, _ = prepared([teachers[2]], teachers)
    two.load_state_dict(one.state_dict())
    assert [str(s) for s in two.sources("teacher")] == ["teacher.hidden_states[0]"]


def test_all_processes_take_what_they_agree_on():
    teachers = layers(3, 6)
    term = Term(Hint(), INPUTS, mapping="auto")
    other = torch.tensor([[0.0, 0.0, 1.0]])
    students = [teachers[0].clone().requires_grad_()]
    term.prepare(values(students, teachers), {"student": [], "teacher": []}, lambda _: other)
    assert [str(s) for s in term.sources() if s.role == "teacher"] == ["teacher.hidden_states[2]"]


def test_a_mapping_with_a_wrong_name_is_refused_before_any_batch():
    with pytest.raises(ValueError, match=r"got 'atuo'\. Did you mean 'auto'\?"):
        Term(Hint(), INPUTS, mapping="atuo")
    with pytest.raises(ValueError, match=r"one of uniform, .*, auto, emd, together"):
        Term(Hint(), INPUTS, mapping="every_0")
