"""Labels as files and data sets hold them: numbers, words, lists and gaps."""

import math
import re
from collections.abc import Sequence
from typing import Any

UNLABELLED = -100

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


def label_set(value: Any) -> list[Any]:
    """Several labels of one row: a list, or words with commas between."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, Sequence) else [value]


def in_order(labels: set[Any]) -> list[str]:
    """The names of classes, by their number if all are numbers.

    Raises:
        ValueError: for a number that is no class.
    """
    labels = {plain(value) for value in labels}
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


def numbers_by_name(names: Sequence[str]) -> dict[str, int]:
    """The number of each class; names are normalised like labels: 1 and "1.0" are the same."""
    return {label_name(name): i for i, name in enumerate(names)}
