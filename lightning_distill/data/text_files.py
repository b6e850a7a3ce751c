"""Text and labels from files: csv, tsv, json, jsonl and parquet."""

import csv
import gzip
from collections.abc import Sequence
from difflib import get_close_matches
from glob import glob
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
        ValueError: for files that cannot be read as what their name says.
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
            columns = self.columns or _header(files[0], suffix)
            features = datasets.Features({name: datasets.Value("string") for name in columns})
            options = {"features": features, "keep_default_na": False, "na_filter": False}
            if suffix == ".tsv":
                options |= {"sep": "\t", "quoting": csv.QUOTE_NONE}
            if self.columns:
                for file in files:
                    _check_width(file, self.columns, suffix)
                options |= {"names": self.columns, "header": None}
        try:
            read = datasets.load_dataset(
                READERS[suffix], data_files=files, split="train", **options
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


def _header(file: str, suffix: str) -> list[str]:
    """The cells of a file's first line."""
    opener = gzip.open if file.endswith(".gz") else open
    with opener(file, "rt", newline="") as lines:
        if suffix == ".tsv":
            return lines.readline().rstrip("\r\n").split("\t")
        return next(csv.reader(lines))


def _check_width(file: str, columns: list[str], suffix: str) -> None:
    cells = _header(file, suffix)
    if len(cells) != len(columns):
        raise ValueError(
            f"`columns` names {len(columns)} columns ({', '.join(columns)}), but the first line of "
            f"{file} has {len(cells)}."
        )
