"""What was predicted for each row of a test, for reports that look at rows."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..metrics import Samples
from ..models.batch import row_numbers, take_rows

# More rows than these say nothing more, and a file of them would be long.
MOST = 1_000_000


@dataclass
class RowsOfTest:
    """The class of each row of a test, and the one that a model predicts.

    Rows of tokens, and rows whose labels are no classes, are not kept.

    Attributes:
        parts: of each batch `label`, `predicted` (int64), `confidence` (float32, the probability
            of the predicted class) and `row` (int64, its number in the data), all `(rows,)`.
    """

    parts: list[dict[str, Tensor]] = field(default_factory=list)
    count: int = 0

    def add(self, samples: Samples, batch: Any, rows: Tensor | None) -> None:
        """Keep those of a batch.

        Args:
            samples: of it.
            batch: as its loader gave it.
            rows: which of its rows count; `None` if all.
        """
        labels, predicted = samples.labels, samples.predicted
        if samples.are_tokens or samples.are_sequences or not samples.task.has_softmax:
            return
        if labels is None or labels.dim() != 1 or labels.is_floating_point():
            return
        if predicted.dim() != 2 or len(predicted) != len(labels) or self.count > MOST:
            return
        confidence, found = predicted.detach().float().softmax(-1).max(-1)
        numbers = take_rows(row_numbers(batch), rows)
        if numbers is None or len(numbers) != len(labels):
            numbers = torch.arange(self.count, self.count + len(labels))
        kept = {"label": labels, "predicted": found, "confidence": confidence, "row": numbers}
        there = samples.task.labelled(labels)
        self.parts.append({name: value[there].cpu() for name, value in kept.items()})
        self.count += len(labels)

    def whole(self) -> dict[str, Tensor]:
        """The rows of all processes, in the order of their numbers; nothing if none was kept.

        Every process must call it.
        """
        parts = self.parts
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            every: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(every, parts)
            parts = [part for own in every for part in own]
        if not parts:
            return {}
        found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        order = found["row"].argsort(stable=True)
        return {name: value[order] for name, value in found.items()}
