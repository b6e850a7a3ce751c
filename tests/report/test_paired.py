import math

import numpy as np
import pytest
from scipy import stats

from lightning_distill.report.paired import (
    DOES_NOT,
    HELPS,
    holm,
    NOT_SHOWN,
    Paired,
)


def words(gain, deviation, seeds, least=0.0, times=1000):
    """How often each word is said of simulated comparisons."""
    drawn = np.random.default_rng(0).normal(gain, deviation, (times, seeds))
    found = [Paired(tuple(row)) for row in drawn]
    said = [one.word(one.p, least=least) for one in found]
    return {word: said.count(word) / times for word in (HELPS, DOES_NOT, NOT_SHOWN)}


def test_the_figures_are_those_of_scipy():
    first, second = [0.8, 0.7, 0.9, 0.75, 0.85], [0.6, 0.65, 0.7, 0.7, 0.6]
    paired = Paired(tuple(a - b for a, b in zip(first, second, strict=True)))
    test = stats.ttest_rel(first, second)
    assert paired.p == pytest.approx(test.pvalue, rel=1e-9)
    interval = test.confidence_interval(0.95)
    assert paired.interval() == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert paired.effect == pytest.approx(
        np.mean(paired.differences) / np.std(paired.differences, ddof=1)
    )


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_where_the_teacher_is_of_no_use_chance_alone_helps_in_five_of_a_hundred(seeds):
    said = words(0.0, 1.0, seeds)
    print(said)
    # Half of the errors of a test on both sides are on this one.
    assert said[HELPS] <= 0.05 and said[DOES_NOT] <= 0.05


def test_where_it_helps_or_harms_much_the_word_is_right():
    # The student of few labels of benchmarks/docstrings gains eight standard deviations.
    for gain, word in ((3.0, HELPS), (-3.0, DOES_NOT)):
        said = words(gain, 1.0, 5)
        print(said)
        assert said[word] >= 0.95


def test_with_a_least_gain_no_help_is_told_from_little_evidence():
    assert words(0.0, 1.0, 5)[NOT_SHOWN] >= 0.9
    said = words(0.0, 0.2, 5, least=0.5)
    print(said)
    assert said[DOES_NOT] >= 0.95
    # A gain of just that much is not taken for none more often than chance allows.
    assert words(0.5, 0.2, 5, least=0.5)[DOES_NOT] <= 0.06


@pytest.mark.parametrize("effect", [0.8, 1.5, 3.0])
def test_so_many_seeds_find_it_nine_times_of_ten(effect):
    spread = np.random.default_rng(1).normal(size=6)
    spread = (spread - spread.mean()) / spread.std(ddof=1)
    needed = Paired(tuple(spread + effect)).seeds_needed()
    assert words(effect, 1.0, needed, times=2000)[HELPS] == pytest.approx(0.9, abs=0.05) or (
        words(effect, 1.0, needed)[HELPS] > 0.9
    )
    assert words(effect, 1.0, needed - 1)[HELPS] < 0.93


def test_holm_is_that_of_the_definition():
    values = [0.01, 0.04, None, 0.03, 0.5]
    # The smallest of four times 4, and none smaller than the one before.
    assert holm(values) == pytest.approx([0.04, 0.09, None, 0.09, 0.5])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


def test_one_seed_and_seeds_that_agree():
    one = Paired((0.3,))
    assert one.p is None and one.interval() is None and one.seeds_needed() is None
    assert one.word(one.p) == NOT_SHOWN
    same = Paired((0.25, 0.25))
    # A t-test would be sure of them; as coins they fall on one side every second time.
    assert same.p == 0.5 and same.word(same.p) == NOT_SHOWN and same.effect is None
    assert Paired((-0.1,) * 6).p == 1 / 32 and Paired((-0.1,) * 6).word(1 / 32) == DOES_NOT
    none = Paired((0.0, 0.0, 0.0))
    assert none.p == 1.0 and none.word(none.p) == NOT_SHOWN
    assert none.word(none.p, least=0.1) == DOES_NOT
    assert math.isclose(Paired((1.0, 3.0)).mean, 2.0)
