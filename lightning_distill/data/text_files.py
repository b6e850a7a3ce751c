"""Text and labels from files: csv, tsv, json, jsonl and parquet."""

import csv
import gzip
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from glob import escape, glob
from pathlib import Path
from typing import Any

import datasets

from .text import TextDataModule

READERS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
}
Files = str | Sequence[str]


class TextFiles(TextDataModule):
    """Rows from files; the kind of a file is told by its name.

    Args:
        train: a file, a pattern with `*`, or a list of them.
        validation: the same; by default cut from the training rows.
        test: the same; by default the validation rows.
        columns: names of the columns of csv and tsv files that have no header.
        options: those of [`TextDataModule`][].

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for files that cannot be read as what their name says, and rows with more or
            fewer cells than there are columns.
    """

    def __init__(
        self,
        train: Files,
        validation: Files | None = None,
        test: Files | None = None,
        columns: Sequence[str] | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.files = {"train": train, "validation": validation, "test": test}
        if isinstance(columns, str):
            raise ValueError(
                f"`columns` must be a list of names, as in [text,label], got {columns!r}."
            )
        self.columns = None if columns is None else list(columns)
        if self.columns and len(set(self.columns)) < len(self.columns):
            raise ValueError(f"`columns` names a column twice: {', '.join(self.columns)}.")

    def load(self) -> dict[str, datasets.Dataset]:
        """Read every file that was named."""
        return {
            split: self._read(_find(split, files))
            for split, files in self.files.items()
            if files is not None
        }

    def _read(self, files: list[str]) -> datasets.Dataset:
        suffix = _suffix(files[0])
        options: dict[str, Any] = {}
        if suffix in (".csv", ".tsv"):
            # Everything is read as text: "none" and "007" are words like any other.
            columns = self.columns or _header(files[0])
            for file in files:
                _check_cells(file, columns, has_header=self.columns is None)
            features = datasets.Features({name: datasets.Value("string") for name in columns})
            options = {"features": features, "keep_default_na": False, "na_filter": False}
            options["encoding"] = "utf-8-sig"
            if suffix == ".tsv":
                options |= {"sep": "\t", "quoting": csv.QUOTE_NONE}
            if self.columns:
                options |= {"names": self.columns, "header": None}
        verbosity = datasets.logging.get_verbosity()
        # It would print the cause, twice, before we say it.
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)
        try:
            read = datasets.load_dataset(
                READERS[suffix], data_files=[escape(f) for f in files], split="train", **options
            )
        except (
            datasets.exceptions.DatasetGenerationError,
            datasets.exceptions.DataFilesNotFoundError,
            OSError,
            ValueError,
        ) as error:
            cause = error.__cause__ or error
            raise ValueError(
                f"{', '.join(files)} cannot be read as {suffix[1:]}: {str(cause).splitlines()[0]}"
            ) from error
        finally:
            datasets.logging.set_verbosity(verbosity)
        return read


def _find(split: str, given: Files) -> list[str]:
    found: list[str] = []
    for name in [given] if isinstance(given, str) else given:
        path = Path(name).expanduser()
        if "*" in name:
            matches = sorted(glob(str(path)))
            if not matches:
                raise FileNotFoundError(f"No file matches data.{split}={name}.")
            found += matches
            continue
        if not path.is_file():
            around = [p.name for p in path.parent.glob("*") if p.is_file()]
            near = get_close_matches(path.name, around, n=3, cutoff=0.4) or sorted(around)[:3]
            listed = f" {path.parent} has: {', '.join(near)}." if near else ""
            raise FileNotFoundError(f"There is no file {name} (data.{split}).{listed}")
        found.append(str(path))
    if not found:
        raise FileNotFoundError(f"data.{split} is an empty list: name at least one file.")
    for file in found:
        if _suffix(file) not in READERS:
            raise ValueError(
                f"{file} (data.{split}) must end in {', '.join(READERS)}, also with .gz."
            )
        if _suffix(file) != _suffix(found[0]):
            raise ValueError(f"data.{split} mixes kinds of files: {', '.join(found[:4])}.")
        if Path(file).stat().st_size == 0:
            raise ValueError(f"{file} (data.{split}) is empty.")
    return found


def _suffix(file: str) -> str:
    return Path(file.removesuffix(".gz")).suffix.lower()


def _cells(file: str) -> Iterator[list[str]]:
    """The cells of each line that is not blank."""
    opener = gzip.open if file.endswith(".gz") else open
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with opener(file, "rt", encoding="utf-8-sig", newline="") as lines:
            if _suffix(file) == ".tsv":
                rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            else:
                rows = csv.reader(lines)
            yield from filter(None, rows)
    except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{file} cannot be read as {_suffix(file)[1:]} in UTF-8: {error}. Save it as UTF-8."
        ) from error
    finally:
        csv.field_size_limit(limit)


def _header(file: str) -> list[str]:
    """The cells of a file's first line."""
    columns = next(_cells(file), [])
    if len(set(columns)) < len(columns):
        raise ValueError(
            f"The header of {file} names a column twice: {', '.join(columns)}. Rename one; if it "
            "has no header, name the columns: data.columns=[text,label]."
        )
    return columns


def _check_cells(file: str, columns: list[str], has_header: bool) -> None:
    """Refuse rows that would be read shifted, or with an empty cell that nobody wrote."""
    count = 0
    for count, cells in enumerate(_cells(file), 1):
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
