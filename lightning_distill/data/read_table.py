"""Rows of csv, tsv, json, jsonl and parquet files, read by `datasets`."""

import csv
import gzip
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

READERS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
}


def read_table(
    files: list[str], columns: Sequence[str] | None = None, streaming: bool = False
) -> Any:
    """All rows of files of one kind, which is told by the first one's name.

    Args:
        files: to be read, one after the other.
        columns: names of the columns of csv and tsv files that have no header.
        streaming: read them while they are iterated over, and hold none of them.

    Returns:
        A `datasets.Dataset`, or of a stream a `datasets.IterableDataset`.

    Raises:
        ValueError: for files that cannot be read as what their name says, and rows with more or
            fewer cells than there are columns.
    """
    kind = suffix(files[0])
    options: dict[str, Any] = {}
    if kind in (".csv", ".tsv"):
        # Everything is read as text: "none" and "007" are words like any other.
        form = _form(files[0], columns)
        names = list(columns) if columns else _header(files[0], form)
        for file in files:
            _check_cells(file, names, form, has_header=not columns)
        # The index that pandas writes has no name.
        names = [name or f"Unnamed: {place}" for place, name in enumerate(names)]
        features = datasets.Features({name: datasets.Value("string") for name in names})
        options = {"features": features, "keep_default_na": False, "na_filter": False}
        options |= {"encoding": "utf-8-sig", "sep": form["delimiter"]}
        options |= {k: v for k, v in form.items() if k != "delimiter"}
        # By these names, whatever blanks stand around them in the file.
        options |= {"names": names, "header": None if columns else 0}
    with readable(files):
        return datasets.load_dataset(
            READERS[kind],
            data_files=[escape(f) for f in files],
            split="train",
            streaming=streaming,
            **options,
        )


def rows_of(files: list[str], streaming: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of files of one kind, one after the other; see [`read_table`][]."""
    rows = iter(read_table(files, streaming=streaming))
    while True:
        # Not around the whole loop: what goes wrong where a row is used is not the file's fault.
        with readable(files):
            row = next(rows, None)
        if row is None:
            return
        yield row


@contextmanager
def readable(files: Sequence[str]) -> Iterator[None]:
    """Say of which files it is that `datasets` cannot read something."""
    verbosity = datasets.logging.get_verbosity()
    # It would print the cause, twice, before we say it.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    except (
        datasets.exceptions.DatasetGenerationError,
        datasets.exceptions.DataFilesNotFoundError,
        OSError,
        ValueError,
    ) as error:
        cause = error.__cause__ or error
        raise ValueError(
            f"{', '.join(files)} cannot be read as {suffix(files[0])[1:]}: "
            f"{str(cause).splitlines()[0]}"
        ) from error
    finally:
        datasets.logging.set_verbosity(verbosity)


def suffix(file: str) -> str:
    """The ending of a name in small letters, but for .gz."""
    return Path(file.removesuffix(".gz")).suffix.lower()


def _form(file: str, columns: Sequence[str] | None) -> dict[str, Any]:
    """How the cells of a file are told apart, as `csv` is told it.

    Spreadsheets of half the world write `;` into what they call csv, and others a tab.
    """
    if suffix(file) == ".tsv":
        return {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    # A header says how many columns there are; without one, more rows tell the marks apart.
    rows = {
        mark: list(islice(_cells(file, {"delimiter": mark}), 100 if columns else 1))
        for mark in (",", ";", "\t")
    }
    fitting = [m for m in rows if columns and all(len(row) == len(columns) for row in rows[m])]
    several = [m for m in rows if rows[m] and len(rows[m][0]) > 1]
    mark = [*fitting, *several, ","][0]
    first = rows[mark][0] if rows[mark] else []
    # Whoever writes a blank behind each comma of the header does so in the rows as well.
    blank = len(first) > 1 and all(cell.startswith(" ") for cell in first[1:])
    return {"delimiter": mark, **({"skipinitialspace": True} if blank else {})}


def _cells(file: str, form: dict[str, Any]) -> Iterator[list[str]]:
    """The cells of each line that is not blank."""
    opener = gzip.open if file.endswith(".gz") else open
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with opener(file, "rt", encoding="utf-8-sig", newline="") as lines:
            yield from filter(None, csv.reader(lines, **form))
    except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{file} cannot be read as {suffix(file)[1:]} in UTF-8: {error}. Save it as UTF-8."
        ) from error
    finally:
        csv.field_size_limit(limit)


def _header(file: str, form: dict[str, Any]) -> list[str]:
    """The cells of a file's first line, without the blanks around them."""
    columns = [name.strip() for name in next(_cells(file, form), [])]
    if len(set(columns)) < len(columns):
        raise ValueError(
            f"The header of {file} names a column twice: {', '.join(columns)}. Rename one; if it "
            "has no header, name the columns: data.columns=[text,label]."
        )
    return columns


def _check_cells(file: str, columns: list[str], form: dict[str, Any], has_header: bool) -> None:
    """Refuse rows that would be read shifted, or with an empty cell that nobody wrote."""
    count = 0
    for count, cells in enumerate(_cells(file, form), 1):
        if count == 1:
            cells = [cell.strip() for cell in cells]
        if len(cells) != len(columns):
            whence = "its header" if has_header else "`columns`"
            raise ValueError(
                f"Row {count} of {file} has {len(cells)} cells, but {whence} names "
                f"{len(columns)} columns ({', '.join(columns)})."
            )
        if count == 1 and has_header and cells != columns:
            raise ValueError(
                f"The header of {file} is {', '.join(cells)}, but another file of the same split "
                f"has {', '.join(columns)}."
            )
        if count == 1 and not has_header and cells == columns:
            raise ValueError(
                f"The first row of {file} is its header ({', '.join(cells)}): leave out `columns`."
            )
    if count <= has_header:
        raise ValueError(f"{file} has no rows.")
