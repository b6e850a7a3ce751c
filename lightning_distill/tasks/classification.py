"""One class of many for each row."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .labels import label_name, numbers_by_name, UNLABELLED
from .task import Task


class Classification(Task):
    """One class of many for each row: int64 `(rows,)`, -100 without a label."""

    name: ClassVar[str] = "classification"
    problem_type: ClassVar[str | None] = "single_label_classification"
    measured_by: ClassVar[tuple[str, ...] | None] = ("Multiclass", "Binary")
    # Which option of the data lists all classes.
    names_option: ClassVar[str] = "data.label_names"

    def read_labels(self, values: Sequence[Any], names: Sequence[str], split: str) -> Tensor:
        """The number of each row's class, -100 without; int64 `(rows,)`."""
        numbers = numbers_by_name(names)
        found = []
        for i, value in enumerate(values):
            number = UNLABELLED if value is None else numbers.get(label_name(value))
            if number is None:
                raise ValueError(
                    f"Label {value!r} in row {i} of the {split} data is none of the classes "
                    f"({', '.join(names[:10])}). Correct the row, or list all in "
                    f"{self.names_option}."
                )
            found.append(number)
        return torch.tensor(found)
