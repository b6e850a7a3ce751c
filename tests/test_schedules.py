import math

import pytest

from lightning_distill.schedules import Constant, Cosine, Linear, Step


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
    ],
)
def test_impossible_schedules_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
