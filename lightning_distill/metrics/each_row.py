"""The states of a metric after each row by itself, and its values for many states."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric

from .traits import added_by, state_holder

# Of one row, in the order of the metric's states: what is added, or what is joined.
State = Tensor | list[Tensor]


class EachRow:
    """A copy of a metric that is updated with single rows, and computed of any states.

    Rows of as many samples are taken at once where the metric allows it (`torch.vmap`); that it
    gives the same is tried.

    Args:
        metric: that is copied.

    Attributes:
        names: of the states of the metric, in order.
        computes_at_once: whether it may be computed of many states at once, as far as is known.
    """

    def __init__(self, metric: Metric):
        self.metric, self.copy = metric, metric.clone()
        self._holder.reset()
        self._fresh = {
            name: list(state) if isinstance(state, list) else state.clone()
            for name, state in self._holder.metric_state.items()
        }
        self.names = list(self._fresh)
        self._updates_at_once = self.computes_at_once = True

    @property
    def _holder(self) -> Any:
        return state_holder(self.copy)

    def to_cpu(self) -> None:
        """Put the copy where states that were gathered are."""
        self.copy.to("cpu")

    def states_of(self, args: Sequence[Any], named: Mapping[str, Any]) -> list[State]:
        """Those after one update, from the beginning."""
        for name, state in self._fresh.items():
            setattr(self._holder, name, list(state) if isinstance(state, list) else state.clone())
        # That of the class: what torchmetrics wraps it in costs more than a small metric.
        type(self.copy).update(self.copy, *args, **named)
        return self._states()

    def states(
        self,
        counts: Int[Tensor, " rows"],
        args: Sequence[Any],
        named: Mapping[str, Any],
        wanted: Sequence[bool],
    ) -> list[list[State]]:
        """Those of each row that is wanted.

        Args:
            counts: how many samples each row has, which come in the order of the rows.
            args: of `update`; those with as many entries as there are samples have one for each.
            named: the same by keyword.
            wanted: for each row.
        """
        added = added_by(self.metric)
        samples = int(counts.sum())
        if added is not None:
            chosen = torch.tensor(wanted, device=counts.device)
            return [list(row) for row in zip(*self._added(counts, added, chosen), strict=True)]
        ends = [0, *counts.cumsum(0).tolist()]
        cuts = [slice(*cut) for cut, own in zip(pairwise(ends), wanted, strict=True) if own]
        found = self._of_lists(cuts, samples, args, named)
        if found is not None:
            return found
        rows = [
            (
                [_cut(value, cut, samples) for value in args],
                {name: _cut(value, cut, samples) for name, value in named.items()},
            )
            for cut in cuts
        ]
        equal = len(cuts) > 2 and bool((counts == counts[0]).all())
        found = self._at_once(rows) if equal and self._updates_at_once else None
        return found if found is not None else [self.states_of(*row) for row in rows]

    def _added(self, counts: Tensor, added: Mapping[str, Tensor], wanted: Tensor) -> list[Any]:
        """The same of a metric that says what each sample has added."""
        at = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
        sums = []
        for name, state in self._fresh.items():
            assert isinstance(state, Tensor)
            zeros = torch.zeros(len(counts), *state.shape, dtype=state.dtype, device=at.device)
            if name in added:
                zeros = zeros.index_add(0, at, added[name].to(state.dtype))
            sums.append(zeros[wanted].unbind())
        return sums

    def _of_lists(
        self, cuts: Sequence[slice], samples: int, args: Sequence[Any], named: Mapping[str, Any]
    ) -> list[list[State]] | None:
        """The same of a metric that keeps an entry for each sample; `None` of any other one.

        What it makes of a sample may depend on the batch, as on whether this has probabilities.
        """
        if not all(isinstance(state, list) for state in self._fresh.values()):
            return None
        whole = [joined(state) for state in self.states_of(args, named)]  # type: ignore[arg-type]
        if any(len(entries) != samples for entries in whole):
            return None
        return [[[entries[cut]] for entries in whole] for cut in cuts]

    def _at_once(self, rows: list[tuple[list[Any], dict[str, Any]]]) -> list[list[State]] | None:
        """The states of all rows; `None` if the metric does not allow it."""
        first, last = (self.states_of(*row) for row in (rows[0], rows[-1]))
        begin = {
            name: state.expand(len(rows), *state.shape).clone()
            for name, state in self._fresh.items()
            if isinstance(state, Tensor)
        }
        per_row = [i for i, value in enumerate(rows[0][0]) if isinstance(value, Tensor)]
        by_name = [name for name, value in rows[0][1].items() if isinstance(value, Tensor)]
        try:
            stacked = [torch.stack([args[i] for args, _ in rows]) for i in per_row]
            more = {name: torch.stack([named[name] for _, named in rows]) for name in by_name}

            def update(
                begin: dict[str, Tensor], own: list[Tensor], more: dict[str, Tensor]
            ) -> list[State]:
                for name, state in self._fresh.items():
                    setattr(self._holder, name, begin.get(name, []))
                    if isinstance(state, list):
                        setattr(self._holder, name, list(state))
                args = list(rows[0][0])
                for i, value in zip(per_row, own, strict=True):
                    args[i] = value
                type(self.copy).update(self.copy, *args, **{**rows[0][1], **more})
                return self._states()

            with warnings.catch_warnings():
                # Of operations that it takes row by row.
                warnings.simplefilter("ignore")
                columns = torch.vmap(update)(begin, stacked, more)
        except Exception:
            # What a metric does with its tensors is its own business: then row by row.
            self._updates_at_once = False
            return None
        found = [
            [[part[i] for part in c] if isinstance(c, list) else c[i] for c in columns]
            for i in range(len(rows))
        ]
        if not (_are_alike(found[0], first) and _are_alike(found[-1], last)):
            self._updates_at_once = False
            return None
        return found

    def _states(self) -> list[State]:
        held = self._holder.metric_state.values()
        return [list(state) if isinstance(state, list) else state for state in held]

    def value_of(self, states: Sequence[State]) -> Tensor:
        """The metric's value for some states."""
        for name, state in zip(self.names, states, strict=True):
            setattr(self._holder, name, state)
        # That of the class: it asks no other process, and keeps nothing.
        value: Tensor = type(self._holder).compute(self._holder)
        return value

    def values_of(self, states: Sequence[Tensor]) -> list[float] | None:
        """The metric's values for many states at once; `None` if it does not allow it.

        Args:
            states: in the order of `names`, `(draws, ...)`.
        """
        if not self.computes_at_once:
            return None
        try:
            found = torch.vmap(lambda *own: self.value_of(own))(*states).flatten().tolist()
            if len(found) == len(states[0]):
                one = float(self.value_of([state[-1] for state in states]))
                if torch.isclose(torch.tensor(found[-1]), torch.tensor(one), equal_nan=True):
                    return [float(value) for value in found]
        except Exception:
            # As above.
            pass
        self.computes_at_once = False
        return None


def joined(parts: Sequence[Tensor]) -> Tensor:
    """The tensors of a list that a metric keeps, one behind the other; numbers as a vector."""
    if not parts:
        return torch.zeros(0)
    return torch.cat([part.reshape(1) if part.dim() == 0 else part for part in parts])


def _cut(value: Any, rows: slice, samples: int) -> Any:
    """The entries of some samples, where a value has one for each."""
    per_sample = isinstance(value, Tensor) and value.dim() > 0 and len(value) == samples
    return value[rows] if per_sample else value


def _are_alike(one: list[State], other: list[State]) -> bool:
    def flat(states: list[State]) -> list[Tensor]:
        return [x for state in states for x in (state if isinstance(state, list) else [state])]

    return all(
        a.shape == b.shape and torch.allclose(a.float(), b.float(), 1e-5, 1e-6, equal_nan=True)
        for a, b in zip(flat(one), flat(other), strict=True)
    )
