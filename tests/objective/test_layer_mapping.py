import math
from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from lightning_distill.objective.layer_mapping import kept_layers, pair_layers

COUNTS = st.integers(1, 40)


def partners(students, teachers, mapping):
    pairs = pair_layers(students, teachers, mapping)
    assert [s for s, _ in pairs] == list(range(students))
    return [t for _, t in pairs]


@pytest.mark.parametrize(
    ("students", "teachers", "mapping", "expected"),
    [
        (6, 12, "uniform", [1, 3, 5, 7, 9, 11]),
        (4, 12, "uniform", [2, 5, 8, 11]),
        (1, 3, "uniform", [2]),
        (2, 3, "uniform", [1, 2]),  # 1.5 rounds up
        (3, 3, "uniform", [0, 1, 2]),
        (4, 2, "uniform", [0, 0, 1, 1]),
        (3, 1, "uniform", [0, 0, 0]),
        (3, 12, "last", [9, 10, 11]),
        (3, 12, "first", [0, 1, 2]),
        (5, 12, "skip", [1, 3, 5, 7, 9]),  # PKD-skip keeps BERT's layers 2, 4, 6, 8, 10
        (4, 12, "skip", [2, 5, 8, 11]),
        (5, 12, "every_2", [1, 3, 5, 7, 9]),
        (3, 12, "every_3", [2, 5, 8]),
        (3, 5, "every_1", [0, 1, 2]),
    ],
)
def test_each_strategy_pairs_the_layers_its_paper_names(students, teachers, mapping, expected):
    assert partners(students, teachers, mapping) == expected


@given(COUNTS, COUNTS)
def test_uniform_rounds_the_even_spread_half_up(students, teachers):
    exact = [Fraction((i + 1) * teachers, students) for i in range(students)]
    expected = [max(math.floor(x + Fraction(1, 2)) - 1, 0) for x in exact]
    found = partners(students, teachers, "uniform")
    assert found == expected
    assert found[-1] == teachers - 1
    assert found == sorted(found)


@given(COUNTS, COUNTS, st.sampled_from(["uniform", "last", "first", "skip", "every_1"]))
def test_a_smaller_student_never_shares_a_teacher_layer(students, teachers, mapping):
    students = min(students, teachers)
    found = partners(students, teachers, mapping)
    assert len(set(found)) == students
    assert min(found) >= 0 and max(found) < teachers


@pytest.mark.parametrize("mapping", ["last", "first", "skip", "every_1"])
def test_a_strategy_refuses_a_student_with_more_layers(mapping):
    with pytest.raises(ValueError, match="more layers than the teacher's 2 for the student's 3"):
        pair_layers(3, 2, mapping)


def test_every_k_refuses_to_step_over_the_top():
    with pytest.raises(ValueError, match=r"'every_3' needs more .* 12 .* 5; use uniform"):
        pair_layers(5, 12, "every_3")


def test_pairs_may_count_from_the_top_and_repeat_layers_on_both_sides():
    pairs = [[0, 1], [0, -1], [-1, 3], (1, 3)]
    assert pair_layers(2, 4, pairs) == [(0, 1), (0, 3), (1, 3), (1, 3)]


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ("unifrom", "one of uniform, last, .* got 'unifrom'. Did you mean 'uniform'?"),
        ("every_0", "or another every_k"),
        ("every_k", "or another every_k"),
        ("nonsense", "got 'nonsense'.$"),
        ([[2, 0]], "The student has no layer 2: it has 2, numbered 0 to 1"),
        ([[0, 4]], "The teacher has no layer 4: it has 4, numbered 0 to 3"),
        ([[0, -5]], "The teacher has no layer -5"),
        ([], "has no pairs"),
        ([[0]], r"\[student, teacher\], got \[0\]"),
        ([[0, 1, 2]], r"\[student, teacher\], got \[0, 1, 2\]"),
    ],
)
def test_a_wrong_mapping_says_what_is_right(mapping, words):
    with pytest.raises(ValueError, match=words):
        pair_layers(2, 4, mapping)


def test_a_model_without_layers_is_refused():
    with pytest.raises(ValueError, match="no layers to pair: 0 and 4"):
        pair_layers(0, 4, "uniform")


@given(COUNTS, COUNTS, st.sampled_from(["uniform", "last", "first", "skip", "every_1"]))
def test_kept_layers_are_the_teachers_side_of_the_pairs(kept, of, keep):
    kept = min(kept, of)
    assert kept_layers(kept, of, keep) == partners(kept, of, keep)


@pytest.mark.parametrize("kept", [None, 3])
def test_kept_layers_may_be_listed_in_any_order(kept):
    assert kept_layers(kept, 6, [5, 0, -2]) == [5, 0, 4]


@pytest.mark.parametrize(
    ("kept", "keep", "words"),
    [
        (0, "uniform", "`layers` must be from 1 to 4, as the teacher has, got 0"),
        (5, "uniform", "`layers` must be from 1 to 4, as the teacher has, got 5"),
        (None, "last", "`layers` says how many of the teacher's 4"),
        (3, "every_2", "'every_2' needs more layers"),
        (2, "frist", "Did you mean 'first'"),
        (None, [], "`keep` lists no layers"),
        (None, [0, 4], "The teacher has no layer 4: it has 4"),
        (None, [1, -3], r"lists a layer twice: \[1, -3\] of 4"),
        (3, [0, 1], "`layers` is 3, but `keep` lists 2; set layers=null"),
    ],
)
def test_a_wrong_choice_of_kept_layers_says_what_is_right(kept, keep, words):
    with pytest.raises(ValueError, match=words):
        kept_layers(kept, 4, keep)
