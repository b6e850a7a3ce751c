"""Numbers that change over the run: for a term's weight or a criterion's temperature.

A schedule is called without arguments and returns its value at the run's progress, a
fraction from 0 (first step) to 1 (last step) that [`Objective`][] sets before each step.
"""

import math
from collections.abc import Sequence

from torch import nn


class Schedule(nn.Module):
    """A number as a function of progress; subclasses write `at`."""

    progress: float = 0.0

    def at(self, progress: float) -> float:
        """The value at `progress`, a fraction of the run from 0 to 1."""
        raise TypeError(f"{type(self).__name__} must define `at(progress)`.")

    def forward(self) -> float:
        """The value now."""
        return self.at(self.progress)

    @property
    def largest(self) -> float:
        """The largest value on a grid over the run: a term is inactive if this is 0."""
        return max(self.at(i / 100) for i in range(101))


class Scaled(Schedule):
    """Another schedule times a number."""

    def __init__(self, schedule: Schedule, factor: float):
        super().__init__()
        self.schedule, self.factor = schedule, factor

    def at(self, progress: float) -> float:
        """`factor * schedule.at(progress)`."""
        return self.factor * self.schedule.at(progress)

    def extra_repr(self) -> str:  # noqa: D102
        return f"times {self.factor}"


class Until(Schedule):
    """A number or another schedule, and 0 from a fraction `end` of the run on."""

    def __init__(self, weight: "float | Schedule", end: float):
        super().__init__()
        if isinstance(end, bool) or not isinstance(end, int | float) or not 0 < end <= 1:
            raise ValueError(f"`until` must be a fraction of the run, as 0.6, got {end!r}.")
        self.schedule = weight if isinstance(weight, Schedule) else Constant(weight)
        self.end = float(end)

    def at(self, progress: float) -> float:
        """The weight before `end`, and 0 afterwards; with an end of 1 to the last step."""
        return self.schedule.at(progress) if progress < self.end or self.end == 1 else 0.0

    def extra_repr(self) -> str:  # noqa: D102
        return f"until {self.end}"


class Constant(Schedule):
    """The same `value` throughout."""

    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def at(self, progress: float) -> float:
        """`value`."""
        return self.value

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.value}"


class _Ramp(Schedule):
    """From `start` to `stop` while progress goes from `begin` to `end`; flat outside."""

    def __init__(self, start: float, stop: float, begin: float = 0.0, end: float = 1.0):
        super().__init__()
        if not 0.0 <= begin < end <= 1.0:
            raise ValueError(
                "`begin` and `end` are fractions of the run with 0 <= begin < end <= 1, "
                f"got begin={begin} and end={end}."
            )
        self.start, self.stop, self.begin, self.end = start, stop, begin, end

    def fraction(self, progress: float) -> float:
        return min(max((progress - self.begin) / (self.end - self.begin), 0.0), 1.0)

    def extra_repr(self) -> str:
        return f"{self.start} -> {self.stop}, from {self.begin} to {self.end} of the run"


class Linear(_Ramp):
    """A straight line from `start` to `stop` between the fractions `begin` and `end`."""

    def at(self, progress: float) -> float:
        """`start + (stop - start) * fraction`."""
        return self.start + (self.stop - self.start) * self.fraction(progress)


class Cosine(_Ramp):
    """Half a cosine from `start` to `stop` between the fractions `begin` and `end`."""

    def at(self, progress: float) -> float:
        """`stop + (start - stop) * (1 + cos(pi * fraction)) / 2`."""
        rest = (1 + math.cos(math.pi * self.fraction(progress))) / 2
        return self.stop + (self.start - self.stop) * rest


class Step(Schedule):
    """Piecewise constant: `values[0]` first, `values[i]` from the fraction `at[i - 1]` on."""

    def __init__(self, values: Sequence[float], at: Sequence[float]):
        super().__init__()
        self.values, self.steps = [float(v) for v in values], [float(a) for a in at]
        if len(self.values) != len(self.steps) + 1 or self.steps != sorted(self.steps):
            raise ValueError(
                "`values` needs one number more than `at`, and `at` must ascend: "
                f"got {len(self.values)} values and at={self.steps}."
            )
        if any(not 0.0 <= a <= 1.0 for a in self.steps):
            raise ValueError(f"`at` holds fractions of the run from 0 to 1, got {self.steps}.")

    def at(self, progress: float) -> float:
        """The value whose interval holds `progress`."""
        return self.values[sum(progress >= a for a in self.steps)]

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.values} at {self.steps} of the run"
