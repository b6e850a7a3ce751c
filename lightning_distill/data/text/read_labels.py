"""The labels of texts: of all splits, as tensors, with one order of classes."""

import logging
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import datasets
import torch

from .labels import class_label, label_name, label_or_none, label_set, numbers_of, plain
from .rows import UNLABELLED

log = logging.getLogger("lightning_distill")


class LabelReader:
    """Reads the column of labels.

    Args:
        column: its name.
        task: `classification`, `multi_label` or `regression`.
        names: all classes in order; by default those of the training rows, sorted.

    Attributes:
        names: all classes in order, after `read`; `None` for a regression.
        count: how many classes there are, or numbers that are predicted.
    """

    def __init__(self, column: str, task: str, names: list[str] | None):
        self.column, self.task, self.names = column, task, names
        self.count: int | None = None

    def read(
        self,
        splits: Mapping[str, datasets.Dataset],
        unlabelled_training: bool,
        validation_is_cut: bool,
    ) -> dict[str, torch.Tensor]:
        """The labels of every split.

        Args:
            splits: `train`, `validation` and `test`.
            unlabelled_training: the training data may lack the column.
            validation_is_cut: the validation rows are cut from the training rows, whose classes
                they may hold alone.

        Returns:
            For each split int64 classes, shape (rows,), -100 without; of several labels 0 or 1,
            shape (rows, classes), -100 without; of a regression numbers, NaN without.

        Raises:
            ValueError: for a column that is missing, and labels that are none of the task's.
        """
        columns = {
            name: self._column(name, split, unlabelled_training) for name, split in splits.items()
        }
        if self.task == "regression":
            self.count = 1
            return {name: numbers_of(values, name) for name, values in columns.items()}
        if self.names is None:
            self.names = self._names_of(splits, columns, validation_is_cut)
        self.count = len(self.names)
        if self.count < 2:
            raise ValueError(
                f"There is only one class ({', '.join(self.names) or 'none'}): nothing to "
                "tell apart. Is data.label the right column?"
            )
        read = classes if self.task == "classification" else label_sets
        return {name: read(values, self.names, name) for name, values in columns.items()}

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
        if feature is None or self.task == "regression":
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
        return in_order({plain(value) for value in found})

    def _distinct(self, split: str, values: list[Any]) -> set[Any]:
        found: set[Any] = set()
        for value in values:
            if value is None:
                continue
            if isinstance(value, list | tuple | dict) and self.task != "multi_label":
                raise ValueError(
                    f"Label {value!r} of the {split} data is a list, but data.task="
                    f"{self.task} has one label per row. For several use data.task=multi_label."
                )
            found.update(label_set(value) if self.task == "multi_label" else [value])
        return found


def in_order(labels: set[Any]) -> list[str]:
    """The names of classes, by their number if all are numbers.

    Raises:
        ValueError: for a number that is no class.
    """
    for value in labels:
        if isinstance(value, float):
            raise ValueError(
                f"Label {value} is no class; classes are whole numbers or words. For numbers "
                "to be predicted use data.task=regression."
            )
        if isinstance(value, int) and value < 0:
            raise ValueError(
                f"Label {value} is negative. Classes count from 0; unlabelled rows have no "
                "label or -100."
            )
    if labels and all(isinstance(value, int) for value in labels):
        return [str(number) for number in sorted(labels)]
    return sorted(str(value) for value in labels)


def classes(values: list[Any], names: list[str], split: str) -> torch.Tensor:
    """The number of each row's class, -100 without, shape (rows,), int64.

    Args:
        values: a label of each row, or `None`.
        names: of all classes in order.
        split: its name, for errors.

    Raises:
        ValueError: for a label that is none of them.
    """
    numbers = numbers_by_name(names)
    found = []
    for i, value in enumerate(values):
        if value is None:
            found.append(UNLABELLED)
            continue
        number = numbers.get(label_name(value))
        if number is None:
            raise ValueError(
                f"Label {value!r} in row {i} of the {split} data is none of the classes "
                f"({', '.join(names[:10])}). Correct the row, or list all in data.label_names."
            )
        found.append(number)
    return torch.tensor(found)


def label_sets(values: list[Any], names: list[str], split: str) -> torch.Tensor:
    """1 for each label of a row, else 0; -100 in rows without, shape (rows, labels).

    Args:
        values: a list of labels of each row, or words with commas between, or `None`.
        names: of all labels in order.
        split: its name, for errors.

    Raises:
        ValueError: for a label that is none of them.
    """
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
                    f"{', '.join(names[:10])}. Correct the row, or list all in data.label_names."
                )
            found[i, numbers[label_name(label)]] = 1.0
    return found


def numbers_by_name(names: list[str]) -> dict[str, int]:
    """The number of each class; names are normalised like labels: 1 and "1.0" are the same."""
    return {label_name(name): i for i, name in enumerate(names)}
