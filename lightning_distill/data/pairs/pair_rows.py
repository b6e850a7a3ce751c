"""Tokens of sources and of targets, and how some of them become a batch."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..ragged import Ragged
from ..text.rows import Collate, Rows, UNLABELLED


class PairRows(Rows):
    """Rows of a source and a target; both have tokens of one tokenizer.

    Args:
        source: `input_ids` and what comes with them, of all rows.
        targets: the tokens of the text that is to be written, of all rows.
        texts: source and target of all rows, as they were read.

    Attributes:
        cut_targets: which rows had a longer target, shape (rows,).
    """

    cut_targets: np.ndarray | None = None

    def __init__(
        self, source: dict[str, Ragged], targets: Ragged, texts: Sequence[tuple[str, str]]
    ):
        super().__init__(source, None, torch.zeros(len(targets), 0), torch.arange(len(targets)))
        self.targets, self.texts = targets, list(texts)

    @property
    def lengths(self) -> np.ndarray:
        """Of source and target together, in tokens, shape (rows,)."""
        return super().lengths + self.targets.lengths[self.numbers.numpy()]

    def labels_at(self, rows: torch.Tensor) -> Ragged:
        """The targets of rows by number."""
        return self.targets.take(rows.numpy())

    @property
    def has_label(self) -> torch.Tensor:
        """Which rows have a target: all."""
        return torch.ones(len(self), dtype=torch.bool)

    def contents(self) -> Iterator[bytes]:
        """All tokens of both."""
        yield from self.student["input_ids"].contents()
        yield from self.targets.contents()


class PairCollate(Collate):
    """Pads sources as the tokenizer does, and targets on the right by -100."""

    def __init__(self, tokenizer: Any):
        super().__init__(tokenizer, None)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Pad the rows and give them as a batch."""
        batch = super().__call__(rows)
        batch["labels"] = rows["labels"].padded(UNLABELLED)
        return batch
