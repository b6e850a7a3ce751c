"""Several independent labels for each row."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .labels import label_name, label_set, numbers_by_name, UNLABELLED
from .task import Task


class MultiLabel(Task):
    """Independent labels: 0 or 1 for each, float32 `(rows, labels)`; a row without is all -100."""

    name: ClassVar[str] = "multi_label"
    problem_type: ClassVar[str | None] = "multi_label_classification"
    label_kind: ClassVar[str] = "binary_cross_entropy"
    metrics: ClassVar[tuple[str, ...]] = ("multilabel_f1", "agreement")
    criteria: ClassVar[tuple[str, ...]] = ("hard_label", "one_versus_all")
    measured_by: ClassVar[tuple[str, ...] | None] = ("Multilabel",)
    has_softmax: ClassVar[bool] = False

    def labelled(self, labels: Tensor) -> Tensor:
        """Which rows have all of their labels."""
        known = super().labelled(labels)
        return known if known.dim() < 2 else known.flatten(1).all(1)

    def measured_labels(self, labels: Tensor) -> Tensor:
        """As whole numbers."""
        return labels.long()

    def probabilities(self, predicted: Tensor) -> Tensor:
        """Of each label by itself, from logits; in float32."""
        return predicted.float().sigmoid()

    def as_values(self, predicted: Tensor) -> Tensor:
        """The probability of each label."""
        return self.probabilities(predicted)

    def agree(self, student: Tensor, teacher: Tensor, tolerance: float) -> Tensor:
        """Where the signs of all logits are the same."""
        return ((student > 0) == (teacher > 0)).all(-1)

    def classes_of(self, value: Any, split: str) -> list[Any]:
        """The entries of a list, or of words with commas between."""
        return label_set(value)

    def read_labels(self, values: Sequence[Any], names: Sequence[str], split: str) -> Tensor:
        """1 for each label of a row, else 0; -100 in rows without; `(rows, labels)`."""
        numbers = numbers_by_name(names)
        found = torch.zeros(len(values), len(numbers))
        for i, value in enumerate(values):
            if value is None:
                found[i] = UNLABELLED
                continue
            for label in label_set(value):
                if label_name(label) not in numbers:
                    raise ValueError(
                        f"Label {label!r} in row {i} of the {split} data is none of "
                        f"{', '.join(names[:10])}. Correct the row, or list all in "
                        "data.label_names."
                    )
                found[i, numbers[label_name(label)]] = 1.0
        return found
