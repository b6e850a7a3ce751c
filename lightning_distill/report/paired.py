"""Whether a difference between two ways to train is more than chance, over several seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

HELPS, DOES_NOT, NOT_SHOWN = "helps", "does not help", "not shown"
# More seeds than that nobody trains.
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Paired:
    """The differences of a metric between two trainings with the same seed, one for each seed.

    Attributes:
        differences: how much better the first one was; below 0 where it was worse.
    """

    differences: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean difference."""
        return statistics.fmean(self.differences)

    @property
    def deviation(self) -> float:
        """The standard deviation of the differences; 0 of one."""
        return statistics.stdev(self.differences) if len(self.differences) > 1 else 0.0

    @property
    def effect(self) -> float | None:
        """Cohen's d of paired samples: the mean in standard deviations; `None` without spread."""
        return self.mean / self.deviation if self.deviation else None

    @property
    def p(self) -> float | None:
        """Of a paired t-test on both sides; `None` of one difference.

        Where all differences are equal, as those of few test rows may be, a t-test would be sure of
        them after two. Then it is the p of a sign test on both sides.
        """
        if len(self.differences) < 2:
            return None
        if not self.deviation:
            return 2.0 ** (1 - len(self.differences)) if self.mean else 1.0
        from scipy.stats import t

        statistic = abs(self.mean) / (self.deviation / math.sqrt(len(self.differences)))
        return float(2 * t.sf(statistic, len(self.differences) - 1))

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """A confidence interval of the mean difference; `None` of one difference."""
        if len(self.differences) < 2:
            return None
        from scipy.stats import t

        n = len(self.differences)
        half = float(t.ppf((1 + level) / 2, n - 1)) * self.deviation / math.sqrt(n)
        return self.mean - half, self.mean + half

    def seeds_needed(self, power: float = 0.9, alpha: float = 0.05) -> int | None:
        """How many seeds a difference like this one takes to be found with that probability.

        `None` without a difference, without spread, or if it takes more than anybody trains.
        """
        if not self.effect:
            return None
        from scipy.stats import nct, t

        for n in range(2, MOST_SEEDS + 1):
            limit = t.ppf(1 - alpha / 2, n - 1)
            found = nct.sf(limit, n - 1, abs(self.effect) * math.sqrt(n))
            # Far from 0 the tail is not computed, and is 1.
            if math.isnan(found) or found >= power:
                return n
        return None

    def word(self, p: float | None, alpha: float = 0.05, least: float = 0.0) -> str:
        """`helps`, `does not help` or `not shown`.

        It helps if the difference is above 0 and more than chance. It does not if the difference is
        below 0 and more than chance, or if the interval of level 1 - 2 alpha lies below `least`
        (one-sided, as in a test of equivalence).

        Args:
            p: corrected for how many comparisons were made.
            alpha: how often chance may look like a difference.
            least: the least gain that is worth anything, in units of the metric.
        """
        if p is None:
            return NOT_SHOWN
        if p < alpha and self.mean > 0:
            return HELPS
        if p < alpha and self.mean < 0:
            return DOES_NOT
        interval = self.interval(1 - 2 * alpha)
        return DOES_NOT if least > 0 and interval is not None and interval[1] < least else NOT_SHOWN


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Each p corrected for how many there are, as Holm (1979) does.

    References:
        Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, 1979, Scandinavian Journal
        of Statistics 6.
    """
    there = sorted((p, i) for i, p in enumerate(values) if p is not None)
    found: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, i) in enumerate(there):
        largest = max(largest, min(1.0, (len(there) - rank) * p))
        found[i] = largest
    return found
