"""How much a term counts: a number, or a schedule of numbers."""

import math
from typing import Any

from ..schedules import Scaled, Schedule, Until

Weight = float | Schedule


def check_weight(weight: Any, until: Any = None) -> Weight:
    """A weight: a finite number that is not negative, or a schedule of such.

    Args:
        weight: as it was given.
        until: the fraction of the run from which on it is 0; `None` is never.
    """
    if until is not None:
        return Until(_checked(weight), until)
    return _checked(weight)


def _checked(weight: Any) -> Weight:
    if isinstance(weight, Schedule):
        return weight
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ValueError(f"`weight` must be a number or a schedule, got {weight!r}.")
    if not math.isfinite(weight) or weight < 0:
        raise ValueError(
            f"`weight` must be finite and not negative, got {weight}. "
            "A weight of 0 switches the term off."
        )
    return float(weight)


def scaled(weight: Weight, factor: float) -> Weight:
    """A weight times a number."""
    return Scaled(weight, factor) if isinstance(weight, Schedule) else weight * factor
