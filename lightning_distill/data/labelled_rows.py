"""Rows with a label each, of which some may be hidden or left out."""

import copy
from typing import Any

import torch
from torch.utils.data import Dataset

UNLABELLED = -100


class LabelledRows(Dataset):
    """Rows that are known by their numbers; a subclass says what a row is.

    Args:
        labels: of all rows, shape (rows, ...).
        numbers: which rows these are, shape (chosen,).
        augmentation: what changes a training row with the view under which it is drawn.
        seed: of the augmentation.
    """

    def __init__(
        self, labels: torch.Tensor, numbers: torch.Tensor, augmentation: Any = None, seed: int = 0
    ):
        self.labels, self.numbers = labels, numbers
        self.augmentation, self.seed = augmentation, seed

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def has_label(self) -> torch.Tensor:
        """Which rows have a label, shape (rows,)."""
        labels = self.labels[self.numbers]
        if labels.dim() == 2:
            return (labels != UNLABELLED).all(dim=1)
        return ~labels.isnan() if labels.is_floating_point() else labels != UNLABELLED

    def labelled(self) -> Any:
        """Those rows that have a label."""
        return self._with(numbers=self.numbers[self.has_label])

    def augmented_by(self, augmentation: Any, seed: int) -> Any:
        """The same rows, which change with the view under which they are drawn."""
        return self._with(augmentation=augmentation, seed=seed)

    def keeping_labels(self, count: int, seed: int) -> Any:
        """All rows, but only `count` of them labelled, in equal shares of the classes."""
        generator = torch.Generator().manual_seed(seed)
        candidates = self.numbers[self.has_label]
        candidates = candidates[torch.randperm(len(candidates), generator=generator)]
        if self.labels.dim() == 1 and not self.labels.is_floating_point():
            seen: dict[int, int] = {}
            turn = []
            for label in self.labels[candidates].tolist():
                seen[label] = seen.get(label, 0) + 1
                turn.append(seen[label])
            # First of each class, second of each class, ...
            candidates = candidates[torch.tensor(turn).argsort(stable=True)]
        labels = self.labels.clone()
        hidden = torch.ones(len(labels), dtype=torch.bool)
        hidden[candidates[:count]] = False
        labels[hidden] = float("nan") if labels.dim() == 1 and labels.is_floating_point() else -100
        return self._with(labels=labels)

    def _with(self, **changes: Any) -> Any:
        changed = copy.copy(self)
        for name, value in changes.items():
            setattr(changed, name, value)
        return changed
