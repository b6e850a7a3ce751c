"""Refuse what is no text, before it is tokenised."""

import logging
from difflib import get_close_matches

import datasets

log = logging.getLogger("lightning_distill")


def check_texts(name: str, split: datasets.Dataset, **columns: str | None) -> None:
    """Refuse a split without the columns of text, or with something else in them.

    Args:
        name: of the split, for errors.
        split: its rows.
        columns: from an option of the data module to the column that it names, or `None`.

    Raises:
        ValueError: naming the column or the row.
    """
    there = split.column_names
    for option, column in columns.items():
        if column is None:
            continue
        if column not in there:
            near = get_close_matches(column, there, n=1)
            hint = f" Did you mean {option}={near[0]}?" if near else ""
            raise ValueError(
                f"The {name} data has no column {column!r} ({option}); it has "
                f"{', '.join(there)}.{hint} A file without a header needs "
                "data.columns=[text,label]."
            )
        empty = 0
        for i, value in enumerate(split[column]):
            if not isinstance(value, str):
                raise ValueError(
                    f"Column {column!r} of the {name} data must hold text, but row {i} holds "
                    f"{value!r} ({type(value).__name__})."
                )
            empty += not value.strip()
        if empty:
            log.warning("%d texts of the %s data are empty (column %r)", empty, name, column)
