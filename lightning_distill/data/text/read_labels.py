"""The labels of texts: of all splits, as tensors, with one order of classes."""

import logging
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import datasets

from ...tasks import Task
from ...tasks.labels import in_order, label_or_none

log = logging.getLogger("lightning_distill")

# So many classes may have a row each, as in a first try.
FEW = 20


class LabelReader:
    """Reads the column of labels.

    Args:
        column: its name.
        task: says what a label is.
        names: all classes in order; by default those of the training rows, sorted.

    Attributes:
        names: all classes in order, after `read`; `None` for a regression.
        count: how many classes there are, or numbers that are predicted.
    """

    def __init__(self, column: str, task: Task, names: list[str] | None):
        self.column, self.task, self.names = column, task, names
        self.count: int | None = None

    def read(
        self,
        splits: Mapping[str, datasets.Dataset],
        unlabelled_training: bool,
        validation_is_cut: bool,
    ) -> dict[str, Any]:
        """The labels of every split.

        Args:
            splits: `train`, `validation` and `test`.
            unlabelled_training: the training data may lack the column.
            validation_is_cut: the validation rows are cut from the training rows, whose classes
                they may hold alone.

        Returns:
            For each split what `task.read_labels` makes of the column.

        Raises:
            ValueError: for a column that is missing, and labels that are none of the task's.
        """
        columns = {
            name: self._column(name, split, unlabelled_training) for name, split in splits.items()
        }
        if not self.task.has_names:
            self.count = 1
            return {n: self.task.read_labels(values, (), n) for n, values in columns.items()}
        if self.names is None:
            self.names = self._names_of(splits, columns, validation_is_cut)
        self.count = len(self.names)
        if self.count < 2:
            raise ValueError(
                f"There is only one class ({', '.join(self.names) or 'none'}): nothing to "
                "tell apart. Is data.label the right column?"
            )
        return {n: self.task.read_labels(values, self.names, n) for n, values in columns.items()}

    def _column(self, name: str, split: datasets.Dataset, unlabelled_training: bool) -> list[Any]:
        if self.column in split.column_names:
            return self._values(split)
        near = get_close_matches(self.column, split.column_names, n=1)
        hint = f" Did you mean label={near[0]}?" if near else ""
        if name == "train" and unlabelled_training:
            log.warning(
                "the training data has no column %r: every row is unlabelled, and only the "
                "teacher is learnt from.%s",
                self.column,
                hint,
            )
            return [None] * len(split)
        raise ValueError(
            f"The {name} data has no column {self.column!r} (label); it has "
            f"{', '.join(split.column_names)}.{hint}"
        )

    def _values(self, split: datasets.Dataset) -> list[Any]:
        """Labels of every row, by name where the data set numbers them; None without."""
        values = [label_or_none(v) for v in split[self.column]]
        feature = class_label(split, self.column)
        if feature is None or not self.task.has_names:
            return values

        def name(value: Any) -> Any:
            if isinstance(value, list):
                return [name(v) for v in value]
            return feature.int2str(value) if isinstance(value, int) else value

        return [name(v) for v in values]

    def _names_of(
        self,
        splits: Mapping[str, datasets.Dataset],
        columns: Mapping[str, list[Any]],
        validation_is_cut: bool,
    ) -> list[str]:
        for split in splits.values():
            feature = class_label(split, self.column)
            if feature is not None:
                return list(feature.names)
        found = self._distinct("train", columns["train"])
        # Validation rows that were cut from these may hold all rows of a rare class.
        if not found or validation_is_cut:
            found |= self._distinct("validation", columns["validation"])
        self._check_classes(found, sum(value is not None for value in columns["train"]))
        return in_order(found)

    def _check_classes(self, found: set[Any], rows: int) -> None:
        """Refuse what hardly are classes: texts to be written, or numbers."""
        if len(found) <= FEW or len(found) <= rows / 2:
            return
        example = str(next(iter(in_order(found))))
        raise ValueError(
            f"The column {self.column!r} has {len(found)} different values in {rows} labelled "
            f"rows, such as {example[:60]!r}: these are hardly classes. Is data.label the right "
            "column? Numbers are learnt with data.task=regression. If they are classes, name them: "
            "data.label_names=[...]."
        )

    def _distinct(self, split: str, values: list[Any]) -> set[Any]:
        found: set[Any] = set()
        for value in values:
            if value is not None:
                found.update(self.task.classes_of(value, split))
        return found


def class_label(split: datasets.Dataset, column: str) -> datasets.ClassLabel | None:
    """The names of a column's numbers, or of the numbers in its lists, if it has any."""
    feature = split.features.get(column)
    feature = getattr(feature, "feature", feature)
    return feature if isinstance(feature, datasets.ClassLabel) else None
