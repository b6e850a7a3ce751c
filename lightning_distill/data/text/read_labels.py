"""The labels of texts: of all splits, as tensors, with one order of classes."""

import logging
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import datasets

from ...column_names import LABELS
from ...tasks import Task
from ...tasks.labels import in_order, label_or_none, plain

log = logging.getLogger("lightning_distill")

# So many classes may have a row each, as in a first try.
FEW = 20


class LabelReader:
    """Reads the column of labels.

    Args:
        column: its name; `None` if no row has a label.
        task: says what a label is.
        names: all classes in order; by default those of the training rows, sorted.
        count: how many classes, or numbers, the user means; `None` takes what is there.
        option: which option of the data names the column.
        confirm: what to set, for an error, where so many `{count}` classes are meant.

    Attributes:
        names: all classes in order, after `read`; `None` for a regression, and where no row has a
            label and nobody has named them.
        count: how many classes there are, or numbers that are predicted; `None` if that is unknown.
    """

    def __init__(
        self,
        column: str | None,
        task: Task,
        names: list[str] | None,
        count: int | None = None,
        option: str = "label",
        confirm: str = "set num_labels={count}",
    ):
        self.column, self.task, self.names, self.count = column, task, names, count
        self.option, self.confirm = option, confirm

    def read(
        self,
        splits: Mapping[str, datasets.Dataset],
        unlabelled_training: bool,
        validation_is_cut: bool,
        texts: Sequence[str] = (),
        labels_elsewhere: bool = False,
    ) -> dict[str, Any]:
        """The labels of every split.

        Args:
            splits: `train`, `validation` and `test`.
            unlabelled_training: the training data may lack the column.
            validation_is_cut: the validation rows are cut from the training rows, whose classes
                they may hold alone.
            texts: columns that are text, and so no labels.
            labels_elsewhere: the rows have labels that are in no column.

        Returns:
            For each split what `task.read_labels` makes of the column.

        Raises:
            ValueError: for a column that is missing, labels that are none of the task's, and more
                classes than are likely to be meant.
        """
        columns = self._columns(splits, unlabelled_training, texts)
        given, labelled = self.count, any(v is not None for c in columns.values() for v in c)
        if not labelled and not labels_elsewhere and self.column is not None:
            log.warning(
                "no row of the data has a label (data.%s=%s): nothing can be learnt but from a "
                "teacher, and nothing measured but the agreement with it",
                self.option,
                self.column,
            )
        if not self.task.has_names:
            self.count = 1
        elif labelled or self.names is not None:
            if self.names is None:
                self.names = self._names_of(splits, columns, validation_is_cut)
                _warn_of_likely_slips(self.names)
            self.count = len(self.names)
            if self.count < 2:
                raise ValueError(
                    f"There is only one class ({', '.join(self.names) or 'none'}): nothing to "
                    f"tell apart. Is data.{self.option} the right column?"
                )
        elif not self.task.has_softmax:
            raise ValueError(
                f"No row has a label, so the classes of data.task={self.task.name} are unknown: "
                "name them, as in data.label_names=[first,second]."
            )
        if given is not None and given != self.count:
            raise ValueError(f"num_labels={given}, but the data has num_labels={self.count}.")
        names = self.names or ()
        return {n: self.task.read_labels(values, names, n) for n, values in columns.items()}

    def _columns(
        self,
        splits: Mapping[str, datasets.Dataset],
        unlabelled_training: bool,
        texts: Sequence[str],
    ) -> dict[str, list[Any]]:
        """The labels of every row of each split, `None` without."""
        if self.column is None:
            return {name: [None] * len(split) for name, split in splits.items()}
        lacking = [name for name, split in splits.items() if self.column not in split.column_names]
        likely = {name: self._likely(splits[name], texts) for name in lacking}
        none_has_it = len(lacking) == len(splits)
        for name in lacking:
            hint = f" Set data.{self.option}={likely[name]}" if likely[name] else ""
            if unlabelled_training and none_has_it and not hint:
                continue
            if unlabelled_training and name == "train" and not none_has_it:
                log.warning(
                    "the training data has no column %r (data.%s), so every training row is "
                    "unlabelled.%s",
                    self.column,
                    self.option,
                    f"{hint} if that holds the labels." if hint else "",
                )
                continue
            unmeant = f", or data.{self.option}=null if no row has a label" if none_has_it else ""
            raise ValueError(
                f"The {name} data has no column {self.column!r} (data.{self.option}); it has "
                f"{', '.join(splits[name].column_names)}."
                + (f"{hint}{unmeant}." if hint else f" Name it{unmeant}." if unmeant else "")
            )
        return {
            name: [None] * len(split) if name in lacking else self._values(split)
            for name, split in splits.items()
        }

    def _likely(self, split: datasets.Dataset, texts: Sequence[str]) -> str | None:
        """The column that may have been meant."""
        others = {name.lower(): name for name in split.column_names if name not in texts}
        near = get_close_matches(str(self.column).lower(), others, n=1)
        found = near or [name for name in LABELS if name in others]
        return others[found[0]] if found else None

    def _values(self, split: datasets.Dataset) -> list[Any]:
        """Labels of every row, by name where the data set numbers them; None without."""
        values = [label_or_none(v) for v in split[self.column]]
        feature = class_label(split, self.column)
        if feature is None or not self.task.has_names:
            return values

        def name(value: Any) -> Any:
            if isinstance(value, list):
                return [name(v) for v in value]
            if isinstance(value, int):
                # A hidden label has no name.
                return feature.int2str(value) if value >= 0 else None
            return value

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
        self._check_count(found, columns["train"])
        # Validation rows that were cut from these may hold all rows of a rare class.
        if not found or validation_is_cut:
            found |= self._distinct("validation", columns["validation"])
        return in_order(found)

    def _check_count(self, classes: set[Any], values: list[Any]) -> None:
        """Refuse texts to be written, and numbers: more than one value for every two rows."""
        count, rows = len(classes), sum(value is not None for value in values)
        one_each = self.task.has_softmax and not self.task.per_token
        if not one_each or count <= max(FEW, rows / 2) or self.count == count:
            return
        numbers = all(isinstance(plain(value), int) for value in classes)
        what = (
            "numbers are learnt with data.task=regression"
            if numbers
            else "texts are written by language models, with data=chat_files"
        )
        raise ValueError(
            f"Column {self.column!r} has {count} different values in {rows} labelled training "
            f"rows, such as {str(min(classes, key=str))[:60]!r}: these are hardly classes. If "
            f"another column holds the label, set data.{self.option}=NAME; {what}; if they are "
            f"classes, {self.confirm.format(count=count)}."
        )

    def _distinct(self, split: str, values: list[Any]) -> set[Any]:
        found: set[Any] = set()
        for value in values:
            if value is not None:
                found.update(self.task.classes_of(value, split))
        return found


def _warn_of_likely_slips(names: Sequence[str]) -> None:
    """Say of classes that are probably none, or one."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.strip().casefold(), []).append(name)
    for those in alike.values():
        if len(those) > 1:
            log.warning(
                "the labels %s are taken for %d classes: are they one?",
                " and ".join(map(repr, those)),
                len(those),
            )
    for name in alike.keys() & {"nan", "none", "null", "n/a", "na"}:
        log.warning(
            "the label %r is taken for a class; leave the cell empty where a row has no label",
            alike[name][0],
        )


def class_label(split: datasets.Dataset, column: str | None) -> datasets.ClassLabel | None:
    """The names of a column's numbers, or of the numbers in its lists, if it has any."""
    feature = None if column is None else split.features.get(column)
    feature = getattr(feature, "feature", feature)
    return feature if isinstance(feature, datasets.ClassLabel) else None
