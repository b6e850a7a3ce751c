"""The rows that hold text where they should, before any is tokenised."""

import logging
from difflib import get_close_matches

import datasets

from ..bad_rows import BadRows

log = logging.getLogger("lightning_distill")


def usable_texts(
    name: str, split: datasets.Dataset, bad_rows: BadRows, **columns: str | None
) -> datasets.Dataset:
    """The rows of a split that hold text in each of these columns.

    Args:
        name: of the split, for errors.
        split: its rows.
        bad_rows: is told of each row that holds something else.
        columns: from an option of the data module to the column that it names, or `None`.

    Raises:
        ValueError: for a column that is not there; for a row, unless such rows are skipped.
    """
    there, bad = split.column_names, set()
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
            if isinstance(value, str):
                empty += not value.strip()
            elif i not in bad:
                bad_rows.add(
                    name,
                    f"Column {column!r} of the {name} data must hold text, but row {i} holds "
                    f"{value!r} ({type(value).__name__}).",
                )
                bad.add(i)
        if empty:
            log.warning("%d texts of the %s data are empty (column %r)", empty, name, column)
    return split.select([i for i in range(len(split)) if i not in bad]) if bad else split
