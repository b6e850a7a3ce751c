"""What is tried of one option in a search: several values, or a range of numbers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from .check_values import check_number

RANGE = ("low", "high", "step", "log")


@dataclass(frozen=True)
class Choices:
    """An option that is one of several values.

    Attributes:
        key: as it is typed, such as `student.layers`.
        values: plain values, lists and dictionaries of them.
    """

    key: str
    values: tuple[Any, ...]

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.values)

    @property
    def ends(self) -> tuple[Any, Any]:
        """The first and the last value."""
        return self.values[0], self.values[-1]

    @property
    def examples(self) -> tuple[Any, ...]:
        """All values."""
        return self.values

    @property
    def codes(self) -> list[Any]:
        """The values as a storage of Optuna keeps them."""
        return [_code(value) for value in self.values]

    def suggest(self, trial: Any) -> Any:
        """The value that a trial of Optuna tries."""
        return self.value(trial.suggest_categorical(self.key, self.codes))

    def value(self, code: Any) -> Any:
        """The value of what a storage holds."""
        return next(value for value in self.values if _code(value) == code)


@dataclass(frozen=True)
class Range:
    """An option that is a number between two others, which it may be too.

    Attributes:
        key: as it is typed, such as `optimizer.lr`.
        low: the least.
        high: the largest.
        step: between neighbours, counted from `low`; whole numbers have 1, others may have none.
        log: whether each order of magnitude is tried as often.
    """

    key: str
    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def count(self) -> int | None:
        """How many values there are; `None` if they cannot be counted."""
        if self.step is None:
            return None
        return int((Decimal(str(self.high)) - Decimal(str(self.low))) / Decimal(str(self.step))) + 1

    @property
    def ends(self) -> tuple[Any, Any]:
        """The first and the last value."""
        return self.low, self.high

    @property
    def examples(self) -> tuple[Any, ...]:
        """The ends: of a number they show what the others do."""
        return self.ends

    @property
    def codes(self) -> list[Any]:
        """All values of a range that can be counted."""
        low, step = Decimal(str(self.low)), Decimal(str(self.step))
        found = [low + i * step for i in range(self.count or 0)]
        return [int(value) if self._is_whole else float(value) for value in found]

    @property
    def _is_whole(self) -> bool:
        return all(isinstance(value, int) for value in (self.low, self.high, self.step))

    def suggest(self, trial: Any) -> Any:
        """The value that a trial of Optuna tries."""
        if self._is_whole:
            return trial.suggest_int(self.key, self.low, self.high, step=self.step, log=self.log)
        limits = {"low": self.low, "high": self.high, "step": self.step, "log": self.log}
        return self.value(trial.suggest_float(self.key, **limits))

    def value(self, code: Any) -> Any:
        """The value of what a storage holds."""
        if self.step is None or self._is_whole:
            return code
        # As it would be typed: sums of floats are off in their last digits.
        low, step = Decimal(str(self.low)), Decimal(str(self.step))
        return float(low + round((Decimal(str(code)) - low) / step) * step)


Parameter = Choices | Range


def _code(value: Any) -> Any:
    """Optuna keeps plain values only."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def read_parameter(key: str, value: Any) -> Parameter:
    """What is tried of an option, as it was typed: a list of choices or a range.

    Args:
        key: as it is typed, such as `optimizer.lr`.
        value: a list, or a mapping with `low` and `high`.

    Raises:
        ValueError: naming the option, what it must be and what it is.
    """
    where = f"job.space.{key}"
    if isinstance(value, Mapping) and value:
        return _range(key, where, value)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(
            f"{where} must be a list of choices, as [1,2,3], or a range, as {{low: 1, high: 3}}, "
            f"got {value!r}. A value for all trials is typed without job.space: {key}=VALUE."
        )
    if not value:
        raise ValueError(f"{where} is an empty list: name its choices, as in {where}=[1,2,3].")
    for i, one in enumerate(value):
        if any(_code(one) == _code(other) for other in value[:i]):
            raise ValueError(f"{where} has {one!r} twice, got {list(value)}. Leave one out.")
    return Choices(key, tuple(value))


def _range(key: str, where: str, given: Mapping[str, Any]) -> Range:
    for name in given:
        if name not in RANGE:
            near = get_close_matches(str(name), RANGE, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"{where} is a range of {', '.join(RANGE)}, got {name!r}.{hint}")
    low, high, step = (given.get(name) for name in RANGE[:3])
    log = given.get("log", False)
    for name, number in (("low", low), ("high", high)):
        check_number(f"{where}.{name}", number, required=True)
    check_number(f"{where}.step", step, above=0)
    if not isinstance(log, bool):
        raise ValueError(f"{where}.log must be true or false, got {log!r}.")
    assert low is not None and high is not None
    if low > high:
        raise ValueError(f"{where} must have low below high, got low={low} and high={high}.")
    if log and step is not None:
        raise ValueError(f"{where} has step and log, which do not go together: leave one out.")
    if log and low <= 0:
        raise ValueError(f"{where} with log must have a positive low, got {low}.")
    if isinstance(low, int) and isinstance(high, int) and step is None:
        step = 1
    return Range(key, low, high, step, log)
