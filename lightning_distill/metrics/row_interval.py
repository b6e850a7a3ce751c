"""How far other test rows of the same kind may bring a metric: a bootstrap over rows."""

import warnings

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .each_row import joined
from .moments import are_moments, states_of, sums_of
from .row_states import RowStates
from .share_interval import share_interval

DRAWS = 1000
# Where a metric must be computed for each draw by itself, which takes its time.
FEWER_DRAWS = 400
# Fewer rows than these do not show how much rows vary, where not all of them are kept.
LEAST_ROWS = 100
# Sums in another order differ by so much.
TOLERANCE, EQUAL = 1e-3, 1e-5
LEVEL = 0.95
# Of so many draws a metric may be undefined, as where all labels are alike.
UNDEFINED = 0.02

Interval = tuple[float, float]
Sums = Float[np.ndarray, "rows numbers"]
Counts = Int[np.ndarray, "draws rows"]


def interval_of_rows(states: RowStates, value: float, seed: int = 0) -> Interval | None:
    """The 95 % interval of a metric over test rows.

    Rows are drawn with replacement, as many as there are, and the metric is computed of the states
    of what was drawn; 2.5 % of the draws lie on either side (Efron and Tibshirani, *An Introduction
    to the Bootstrap*, 1993). Where the metric is the share of rows for which it is 1, and 0 for the
    others, it is the interval of Wilson. Where not all rows are kept, so many as are kept are
    drawn, and distances from the value shrink by the root of the share of the rows that is kept.

    Args:
        states: of each row, of all processes, on the CPU.
        value: of the metric on all rows.
        seed: of the draws.

    Returns:
        Both ends; `None` if the metric is not made of what its rows add to it, or if no draw
        differs from another.
    """
    if not states.is_open or len(states.kept) < 2:
        return None
    with warnings.catch_warnings(), torch.no_grad():
        # Metrics warn of what is drawn as they would of the data.
        warnings.simplefilter("ignore")
        try:
            return _interval(_Drawn(states), states, value, seed)
        except Exception:
            # Of a metric that somebody has written, as far as it cannot be put together again.
            return None


def interval_of_units(units: Float[Tensor, "units 2"], seed: int = 0) -> Interval | None:
    """The same of a metric that says of which units it is the mean.

    Args:
        units: numerator and denominator of each.
        seed: of the draws.
    """
    sums = units.double().cpu().numpy()
    # In one order, whichever process had a unit: then the same ones are drawn.
    sums = sums[np.lexsort(sums.T)]
    ratios = sums[:, 0] / np.where(sums[:, 1] == 0, 1, sums[:, 1])
    if len(sums) < 2:
        return None
    if (sums[:, 1] == 1).all() and np.isin(ratios, (0, 1)).all():
        return share_interval(float(ratios.mean()), len(sums))
    drawn = _counts(np.random.default_rng(seed), DRAWS, len(sums)) @ sums
    return _ends(drawn[:, 0] / np.where(drawn[:, 1] == 0, np.nan, drawn[:, 1]))


def _interval(drawn: "_Drawn", states: RowStates, value: float, seed: int) -> Interval | None:
    rows = drawn.rows
    if rows < 2:
        return None
    seen = states.seen * rows / len(states.kept)
    everything = float(drawn.values(np.ones((1, rows), dtype=np.int64))[0])
    whole = states.share == 1
    if whole and not np.isclose(everything, value, TOLERANCE, TOLERANCE * 0.1):
        return None
    if not whole and (not states.is_additive or rows < LEAST_ROWS):
        return None
    if drawn.is_mean_of_truths(everything):
        return share_interval(value, round(seen))
    values = drawn.values(_counts(np.random.default_rng(seed), drawn.draws, rows))
    if not whole:
        values = value + (values - everything) * np.sqrt(rows / seen)
    return _ends(values)


def _counts(draw: np.random.Generator, draws: int, rows: int) -> Counts:
    """How often each row is drawn."""
    return draw.multinomial(rows, np.full(rows, 1 / rows), size=draws)


def _ends(values: Float[np.ndarray, " draws"]) -> Interval | None:
    known = values[~np.isnan(values)]
    if len(known) < (1 - UNDEFINED) * len(values):
        return None
    low, high = map(float, np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    # Of a model that always says the same, drawing rows anew shows nothing.
    return (low, high) if low < high and np.isfinite([low, high]).all() else None


class _Drawn:
    """A metric of rows that are drawn, from the states of each.

    Args:
        states: of the rows.
    """

    def __init__(self, states: RowStates):
        self.each_row = states.each_row
        self.each_row.to_cpu()
        self.lists: dict[str, _Joined] = {}
        sums: dict[str, np.ndarray] = {}
        self.like: dict[str, Tensor] = {}
        for i, name in enumerate(self.each_row.names):
            column = [own[i] for own in states.kept.values()]
            if isinstance(column[0], Tensor):
                stacked = torch.stack(column)  # type: ignore[arg-type]
                sums[name], self.like[name] = stacked.double().numpy(), stacked[0]
            else:
                self.lists[name] = _Joined(column)  # type: ignore[arg-type]
        self.by_moments = are_moments(self.each_row.names)
        sums = sums_of(sums) if self.by_moments else sums
        self.shapes = {name: value.shape[1:] for name, value in sums.items()}
        flat = [value.reshape(len(value), -1) for value in sums.values()]
        self.sums = np.concatenate(flat, axis=1) if flat else np.zeros((len(states.kept), 0))
        if not self.lists:
            # A row without a label adds nothing, and is none of those that are drawn.
            self.sums = self.sums[(self.sums != 0).any(axis=1)]
        self.rows = len(self.sums)

    def values(self, counts: Counts) -> Float[np.ndarray, " draws"]:
        """The metric's value for each draw."""
        drawn = counts.astype(np.float64) @ self.sums
        sums, at = {}, 0
        for name, shape in self.shapes.items():
            size = int(np.prod(shape))
            sums[name] = drawn[:, at : at + size].reshape(len(counts), *shape)
            at += size
        sums = states_of(sums) if self.by_moments else sums
        states = {
            name: torch.from_numpy(sums[name]).to(like.dtype) for name, like in self.like.items()
        }
        if not self.lists:
            found = self.each_row.values_of(list(states.values()))
            if found is not None:
                return np.array(found)
        return np.array([self._value(i, states, own) for i, own in enumerate(counts)])

    def _value(self, i: int, states: dict[str, Tensor], own: np.ndarray) -> float:
        found = [
            states[name][i] if name in states else self.lists[name].drawn(own)
            for name in self.each_row.names
        ]
        return float(self.each_row.value_of(found))

    @property
    def draws(self) -> int:
        """How many are made: fewer where each is computed by itself."""
        return DRAWS if self.each_row.computes_at_once and not self.lists else FEWER_DRAWS

    def is_mean_of_truths(self, value: float) -> bool:
        """Whether each row by itself has 0 or 1, and the metric is their mean."""
        if self.lists or not 0 <= value <= 1:
            return False
        found = np.zeros(0)
        # Most metrics have another value for one of the first.
        for some in (slice(0, 20), slice(0, None)):
            try:
                found = self.values(np.eye(len(self.sums), dtype=np.int64)[some])
            except Exception:
                # One row is too few for it.
                return False
            if not np.isin(found, (0.0, 1.0)).all():
                return False
        # An error of 0 everywhere is no share: shares are made of counts.
        are_counts = not any(like.is_floating_point() for like in self.like.values())
        differ = bool((found != found[0]).any())
        return (are_counts or differ) and abs(float(found.mean()) - value) < EQUAL


class _Joined:
    """The lists of all rows, one behind the other.

    Args:
        lists: what each row has added to a list of a metric.
    """

    def __init__(self, lists: list[list[Tensor]]):
        parts = [part for own in lists for part in own]
        # Some metrics keep vectors, and some a number for each sample.
        self.are_numbers = bool(parts) and all(part.dim() == 0 for part in parts)
        self.entries = joined(parts)
        self.lengths = np.array([len(joined(own)) for own in lists])
        self.begins = np.cumsum(self.lengths) - self.lengths

    def drawn(self, counts: Int[np.ndarray, " rows"]) -> list[Tensor]:
        """Those of rows that are drawn so often."""
        rows = np.repeat(np.arange(len(counts)), counts)
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        at = torch.from_numpy(np.repeat(self.begins[rows], lengths) + within)
        found = self.entries[at]
        return list(found.unbind()) if self.are_numbers else [found]
