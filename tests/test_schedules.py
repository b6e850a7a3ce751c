import math

import pytest

from lightning_distill.schedules import Constant, Cosine, Linear, Step, Until


def test_linear_is_a_line_and_flat_outside():
    schedule = Linear(1.0, 3.0, begin=0.25, end=0.75)
    assert [schedule.at(p) for p in (0, 0.25, 0.5, 0.75, 1)] == [1, 1, 2, 3, 3]


def test_cosine_is_half_a_cosine():
    schedule = Cosine(4.0, 0.0)
    for p in (0.0, 0.3, 0.5, 1.0):
        assert schedule.at(p) == pytest.approx(2 + 2 * math.cos(math.pi * p))


def test_step_changes_at_its_fractions():
    schedule = Step([1.0, 2.0, 5.0], at=[0.5, 0.9])
    assert [schedule.at(p) for p in (0, 0.49, 0.5, 0.9, 1)] == [1, 1, 2, 5, 5]


def test_until_is_what_it_was_and_then_nothing():
    assert [Until(2.0, 0.6).at(p) for p in (0, 0.5, 0.59, 0.6, 1)] == [2, 2, 2, 0, 0]
    assert [Until(Linear(0.0, 4.0), 0.5).at(p) for p in (0.25, 0.5)] == [1, 0]
    assert Until(2.0, 1).at(1.0) == 2 and Until(2.0, 0.6).largest == 2


def test_a_schedule_is_called_for_its_value_now():
    schedule = Linear(0.0, 10.0)
    schedule.progress = 0.4
    assert schedule() == pytest.approx(4.0)
    assert Constant(3.0)() == 3.0
    assert schedule.largest == 10.0


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Linear(0, 1, begin=0.5, end=0.5), "0 <= begin < end <= 1"),
        (lambda: Cosine(0, 1, end=100), "fractions of the run"),
        (lambda: Step([1.0], at=[0.5]), "one number more"),
        (lambda: Step([1.0, 2.0], at=[20]), "fractions of the run"),
        (lambda: Until(1.0, 60), "`until` must be a fraction of the run, as 0.6, got 60"),
        (lambda: Until(1.0, 0), "as 0.6, got 0"),
    ],
)
def test_impossible_schedules_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
