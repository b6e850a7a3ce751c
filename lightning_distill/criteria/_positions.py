"""Criteria over positions: the classes are the places of a text, of which each has other ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ._check import UNLABELLED
from ._wrapper import Wrapper
from .criterion import Criterion


class OverPositions(Wrapper):
    """Any criterion of logits `(rows, tokens)`, given only the positions of a row that count.

    Rows in which equally many positions count are given to the criterion together, as logits
    `(rows, positions)`. So it sees neither padding nor anything that stands for it, whatever it
    does with its classes, and its value is the mean over all rows.

    Args:
        criterion: compares row by row, and builds no parts for a number of classes.
        logits: the names of its arguments that are logits of positions.
        labels: the names of those that are places of tokens, -100 without one.
        of_batch: the names of those that are read from the batch.
    """

    def __init__(
        self,
        criterion: Any,
        logits: Sequence[str],
        labels: Sequence[str] = (),
        of_batch: Sequence[str] = (),
    ):
        super().__init__(criterion)
        self.logits, self.labels, self.of_batch = tuple(logits), tuple(labels), tuple(of_batch)

    def around(self, criterion: Criterion) -> "OverPositions":
        """The same positions for another criterion."""
        return OverPositions(criterion, self.logits, self.labels, self.of_batch)

    def counted(self, **inputs: Any) -> Tensor | None:
        """The rows that count in the criterion."""
        return self.criterion.counted(**_without_positions(inputs))

    def forward(
        self, *, positions: Tensor | None = None, padding: Tensor | None = None, **inputs: Any
    ) -> Tensor:
        """The mean over rows.

        Args:
            positions: true where a position counts, `(rows, tokens)`.
            padding: the same, where `positions` is `None`; all count without either.
            inputs: arguments of the criterion.
        """
        there = positions if positions is not None else padding
        first = inputs[self.logits[0]]
        there = torch.ones_like(first, dtype=torch.bool) if there is None else there != 0
        if there.shape != first.shape:
            raise ValueError(
                f"Each position needs one entry of the mask: got logits of shape "
                f"{tuple(first.shape)} and a mask of shape {tuple(there.shape)}."
            )
        lengths = there.sum(dim=1)
        total, count = first.sum() * 0.0, torch.zeros((), device=first.device)
        for length in lengths.unique().tolist():
            rows = lengths == length
            own = {n: self._of_rows(n, v, rows, there, length) for n, v in inputs.items()}
            read = {name: value for name, value in own.items() if name in self.of_batch}
            counted = self.criterion.counted(**read)
            weight = rows.sum() if counted is None else counted.sum()
            # Selected and not multiplied: a mean over nothing may be NaN.
            total = total + torch.where(weight > 0, self.criterion(**own) * weight, 0.0)
            count = count + weight
        return total / count.clamp(min=1)

    def _of_rows(self, name: str, value: Any, rows: Tensor, there: Tensor, length: int) -> Any:
        """What the criterion is given of an argument, for rows with so many positions."""
        if not isinstance(value, Tensor) or not value.dim() or len(value) != len(rows):
            return value
        value, there = value[rows], there[rows]
        if name in self.logits:
            return value[there].reshape(len(value), length)
        return _places(value, there) if name in self.labels else value

    def extra_repr(self) -> str:
        return f"logits={self.logits}"


def _places(labels: Tensor, there: Tensor) -> Tensor:
    """Which of the positions that count each label is; -100 without one.

    Raises:
        ValueError: for a label that is none of them.
    """
    known = labels != UNLABELLED
    at = labels.masked_fill(~known, 0)
    if ((at < 0) | (at >= there.shape[1])).any() or not there.gather(1, at[:, None])[known].all():
        raise ValueError(
            "A label names a position that does not count: an answer begins and ends at tokens of "
            "the context, or at the first token where there is none (`answer_mask` of the batch)."
        )
    place = there.long().cumsum(1).gather(1, at[:, None]).squeeze(1) - 1
    return place.masked_fill(~known, UNLABELLED)


def _without_positions(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in inputs.items() if n not in ("positions", "padding")}
