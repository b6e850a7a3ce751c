"""One number for each row, or several."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .task import Task


class Regression(Task):
    """Numbers: float `(rows,)`, in Python also `(rows, outputs)`; NaN without a label."""

    name: ClassVar[str] = "regression"
    problem_type: ClassVar[str | None] = "regression"
    label_kind: ClassVar[str] = "mse"
    metrics: ClassVar[tuple[str, ...]] = ("pearson", "mean_squared_error", "agreement")
    criteria: ClassVar[tuple[str, ...]] = ("hard_label", "logit_mse")
    measured_by: ClassVar[tuple[str, ...] | None] = ("torchmetrics.regression",)
    has_softmax: ClassVar[bool] = False
    has_names: ClassVar[bool] = False

    def write_labels(self, config: Any, num_labels: int | None, names: Any = None) -> None:
        """Write that one number is predicted.

        Raises:
            ValueError: if there are to be several.
        """
        if num_labels != 1:
            raise ValueError(f"A regression predicts one number: num_labels=1, got {num_labels}.")
        super().write_labels(config, num_labels, names)

    def labelled(self, labels: Tensor) -> Tensor:
        """Which rows have all of their numbers."""
        known = ~labels.isnan()
        return known if known.dim() < 2 else known.flatten(1).all(1)

    def measured_labels(self, labels: Tensor) -> Tensor:
        """As they are, however many there are of a row."""
        return labels

    def agree(self, student: Tensor, teacher: Tensor, tolerance: float) -> Tensor:
        """Where the numbers differ by no more than the tolerance."""
        return (student - teacher).abs() <= tolerance

    def read_labels(self, values: Sequence[Any], names: Sequence[str], split: str) -> Tensor:
        """The number of each row, NaN without; `(rows,)`."""
        found = []
        for i, value in enumerate(values):
            try:
                found.append(math.nan if value is None else float(value))
                if value is not None and not math.isfinite(found[-1]):
                    raise ValueError
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"Label {value!r} in row {i} of the {split} data is no number, which "
                    "data.task=regression needs."
                ) from error
        return torch.tensor(found)
