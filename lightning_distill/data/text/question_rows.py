"""Windows of questions as rows, and how some of them become a batch."""

from typing import Any

import numpy as np
import torch

from ..ragged import Ragged
from .rows import Collate, Rows, UNLABELLED
from .windows import Windows


class QuestionRows(Rows):
    """Rows that are windows; each batch says which, in `window`.

    Args:
        windows: of all questions of a split.
        labels: first and last token of the answer of each window, shape (windows, 2).

    Attributes:
        first_window: the number of the first among those of all splits.
    """

    first_window: int = 0

    def __init__(self, windows: Windows, labels: torch.Tensor):
        super().__init__(windows.tokens, None, labels, torch.arange(len(labels)))
        self.windows = windows

    def __getitem__(self, chosen: list[int]) -> dict[str, Any]:
        """What is to be collated, with the number of each window."""
        found = super().__getitem__(chosen)
        asked = np.asarray(chosen, dtype=np.int64)
        places = self.numbers.numpy()[np.where(asked < 0, -asked - 1, asked)]
        return {**found, "window": torch.from_numpy(places + self.first_window)}

    @property
    def questions(self) -> np.ndarray:
        """The number of each window's question, shape (windows,)."""
        return self.windows.questions[self.numbers.numpy()]

    @property
    def labelled_questions(self) -> int:
        """How many questions have a label."""
        return len(np.unique(self.questions[self.has_label.numpy()]))

    def keeping_labels(self, count: int, seed: int) -> Rows:
        """All rows, but labels of all windows of `count` questions only."""
        known = torch.from_numpy(np.unique(self.questions[self.has_label.numpy()]))
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
        kept = np.isin(self.windows.questions, known[order[:count]].numpy())
        labels = self.labels.clone()
        labels[torch.from_numpy(~kept)] = UNLABELLED
        return self._with(labels=labels)


class QuestionCollate(Collate):
    """Pads, and says which windows a batch holds."""

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Pad the rows and give them as a batch."""
        return {**super().__call__(rows), "window": rows["window"]}


def joined(parts: list[Ragged]) -> Ragged:
    """All rows, one after the other."""
    lengths = np.concatenate([part.lengths for part in parts])
    return Ragged.split(np.concatenate([part.values for part in parts]), lengths)
