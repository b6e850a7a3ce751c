"""What each test row adds to a metric, so that other rows can be drawn from these."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric

from .each_row import EachRow, joined, State
from .moments import are_moments, combined
from .traits import added_by, compares_rows, tells_units

# Of more rows a part is kept: how far a metric varies over rows is known from these.
MOST_ROWS = 1000
# Numbers of all rows together, such as those of a confusion matrix for each row.
MOST_NUMBERS = 2**23
MASK = 2**64 - 1


class RowStates:
    """The states of a metric after each row by itself.

    Rows that share a key, such as the candidates of one query, count as one. Of more than 1,000
    rows a part is kept that their keys choose, as in a sketch of the least hashes (Bar-Yossef et
    al., *Counting distinct elements in a data stream*, 2002): the same rows whatever the batches
    are.

    Args:
        metric: that is measured; it is not changed.

    Attributes:
        kept: by the key of a row its states.
        share: which part of the rows is kept, as the hashes choose it.
        seen: how many rows there were.
        is_additive: whether the rows of a batch were seen to add up to the batch; `None` as long
            as there was no batch of several rows.
        is_open: whether rows are kept: not those of a metric that says of which units it is the
            mean, nor of one that compares rows with each other, for a row that is drawn twice
            would be compared with itself, nor of one whose rows do not add up.
    """

    def __init__(self, metric: Metric):
        self.metric = metric
        self.kept: dict[int, list[State]] = {}
        self.share, self.seen = 1.0, 0
        self.is_additive: bool | None = None
        self._last: int | None = None
        self.is_open = not compares_rows(metric) and not tells_units(metric)
        if self.is_open:
            self.each_row = EachRow(metric)
            self.is_open = bool(self.each_row.names)

    @torch.no_grad()
    def add(
        self,
        keys: Sequence[int],
        rows: Int[Tensor, " samples"],
        args: Sequence[Any],
        named: Mapping[str, Any],
    ) -> None:
        """Take what the metric was just given.

        Args:
            keys: of all rows of the batch.
            rows: of each sample, the place of its row in the batch, in order.
            args: of `update`; those with as many entries as there are samples have one for each.
            named: the same by keyword.
        """
        if not self.is_open or not len(rows):
            return
        places, counts = rows.unique_consecutive(return_counts=True)
        own = [keys[place] for place in places.tolist()]
        # One that a batch, or a part of it, has begun may go on in the next.
        self.seen += len(own) - int(own[0] == self._last)
        self._last = own[-1]
        wanted = [self._keeps(key) for key in own]
        try:
            found = self.each_row.states(counts, args, named, wanted)
            if self.is_additive is None and len(own) > 1 and all(wanted):
                self.is_additive = self._add_up(found, args, named)
        except Exception:
            # Whatever a metric says that cannot take one row alone: it has taken the batch.
            self.is_additive = False
        if self.is_additive is False:
            self._close()
            return
        chosen = (key for key, is_wanted in zip(own, wanted, strict=True) if is_wanted)
        for key, states in zip(chosen, found, strict=True):
            self._merge(key, states)
        self._keep_most()

    def whole(self) -> "RowStates":
        """With the rows of all processes, on the CPU; every process must call it."""
        self._keep_most(at_last=True)
        names = range(len(self.each_row.names)) if self.is_open else ()
        # One copy of each state, and not one for each row.
        columns = [_on_cpu([states[i] for states in self.kept.values()]) for i in names]
        rows = zip(*columns, strict=True) if columns else ()
        found = {key: list(states) for key, states in zip(self.kept, rows, strict=False)}
        # In one order, whichever process and batch had a row: then the same rows are drawn.
        self.kept = dict(sorted(found.items()))
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return self
        every: list[Any] = [None] * torch.distributed.get_world_size()
        own = (self.is_open, self.is_additive, self.share, self.seen, self.kept)
        torch.distributed.all_gather_object(every, own)
        are_open, additive, shares, seen, kept = zip(*every, strict=True)
        self.kept, self.share, self.seen = {}, min(shares), sum(seen)
        self.is_additive = any(additive) or None
        if not all(are_open):
            self._close()
            return self
        for key, states in (one for rows in kept for one in rows.items()):
            if self._keeps(key):
                self._merge(key, states)
        self._keep_most(at_last=True)
        self.kept = dict(sorted(self.kept.items()))
        return self

    def _close(self) -> None:
        self.is_open = False
        self.kept.clear()

    def _add_up(
        self, found: list[list[State]], args: Sequence[Any], named: Mapping[str, Any]
    ) -> bool:
        """Whether all states of a batch are the sums, or the joined lists, of those of its rows."""
        names = self.each_row.names
        if added_by(self.metric) is not None or are_moments(names):
            return True
        for i, state in enumerate(self.each_row.states_of(args, named)):
            parts: list[Any] = [states[i] for states in found]
            if isinstance(state, list):
                both = joined(state), joined([part for own in parts for part in own])
            else:
                both = state, torch.stack(parts).sum(0)
            whole, rows = (x.float() for x in both)
            if whole.shape != rows.shape or not torch.allclose(whole, rows, 1e-3, 1e-4, True):
                return False
        return True

    def _merge(self, key: int, states: list[State]) -> None:
        before, names = self.kept.get(key), self.each_row.names
        if before is not None and are_moments(names):
            one, other = (dict(zip(names, of, strict=True)) for of in (before, states))
            states = list(combined(one, other).values())  # type: ignore[arg-type]
        elif before is not None:
            # Tensors are added, and lists joined.
            states = [a + b for a, b in zip(before, states, strict=True)]  # type: ignore[operator]
        self.kept[key] = states

    def _keeps(self, key: int) -> bool:
        return self.share == 1 or _hash(key) < self.share

    def _keep_most(self, at_last: bool = False) -> None:
        one = next(iter(self.kept.values()), [])
        held = (x for state in one for x in (state if isinstance(state, list) else [state]))
        most = min(MOST_ROWS, MOST_NUMBERS // max(sum(x.numel() for x in held), 1))
        # Not after each batch.
        if len(self.kept) > most * (1 if at_last else 1.25):
            self.share = sorted(map(_hash, self.kept))[most]
            self.kept = {key: states for key, states in self.kept.items() if self._keeps(key)}


def _on_cpu(states: list[State]) -> list[State]:
    if not states or isinstance(states[0], list):
        return [[part.cpu() for part in own] for own in states]
    return list(torch.stack(states).cpu().unbind())  # type: ignore[arg-type]


def _hash(key: int) -> float:
    """A number from 0 to 1 that looks drawn at random, and is the same for a key (splitmix64)."""
    bits = (key + 1) * 0x9E3779B97F4A7C15 & MASK
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & MASK
    return (bits ^ bits >> 31) / 2**64
