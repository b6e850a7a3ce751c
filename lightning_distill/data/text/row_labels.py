"""Labels of whole sentences whose words have tags, such as the intent of a command."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datasets

from ...tasks import Classification
from .read_labels import LabelReader


class LabelsOfRows(Classification):
    """One class of many for each sentence, beside the tags of its words."""

    names_option: ClassVar[str] = "data.row_label_names"


def read_row_labels(
    column: str,
    names: list[str] | None,
    splits: Mapping[str, datasets.Dataset],
    validation_is_cut: bool,
    texts: Sequence[str],
) -> tuple[dict[str, Any], list[str] | None]:
    """The label of every sentence of each split, int64 (rows,), -100 without, and their names.

    Args:
        column: that holds them.
        names: all in order; by default those of the training sentences, sorted.
        splits: `train`, `validation` and `test`.
        validation_is_cut: the validation sentences are cut from the training sentences.
        texts: columns that are text, and so no labels.

    Returns:
        The names are `None` if no sentence has a label and nobody has named them.

    Raises:
        ValueError: for a column that is missing in any split, and for a label of another split
            that no training sentence has.
    """
    reader = LabelReader(
        column,
        LabelsOfRows(),
        names,
        option="row_label",
        confirm="list them in data.row_label_names",
    )
    found = reader.read(
        splits, unlabelled_training=False, validation_is_cut=validation_is_cut, texts=texts
    )
    return found, reader.names
