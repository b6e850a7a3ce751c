"""Labels as files and data sets hold them: numbers, words, lists and gaps."""

import math
import re
from collections.abc import Sequence
from typing import Any

import datasets
import torch

from .rows import UNLABELLED

# "007" and "nan" are words.
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?", re.ASCII)


def label_or_none(value: Any) -> Any:
    """A label as it is, or `None` where a row has none: empty, -100 or NaN."""
    if value is None or value == UNLABELLED:
        return None
    if isinstance(value, str):
        value = value.strip()
        return None if value in ("", str(UNLABELLED)) else value
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def plain(value: Any) -> Any:
    """A number, where text or a float stands for a whole one; files do not agree on this."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value) if "." in value else int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def label_name(value: Any) -> str:
    """A label as the name of a class; 1, 1.0 and the text 1 are one."""
    return str(plain(value))


def class_label(split: datasets.Dataset, column: str) -> datasets.ClassLabel | None:
    """The names of a column's numbers, or of the numbers in its lists, if it has any."""
    feature = split.features.get(column)
    feature = getattr(feature, "feature", feature)
    return feature if isinstance(feature, datasets.ClassLabel) else None


def label_set(value: Any) -> list[Any]:
    """Several labels of one row: a list, or words with commas between."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, Sequence) else [value]


def numbers_of(values: list[Any], split: str) -> torch.Tensor:
    """Labels of a regression, NaN where there is none."""
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
