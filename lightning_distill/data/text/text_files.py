"""Text and labels from files: csv, tsv, json, jsonl and parquet."""

from collections.abc import Sequence
from typing import Any

import datasets

from ...find_files import Files, find_files
from ..read_table import read_table, READERS, suffix
from .text import TextDataModule


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
            split: read_table(_find(split, files), self.columns)
            for split, files in self.files.items()
            if files is not None
        }


def _find(split: str, given: Files) -> list[str]:
    found = find_files(split, given)
    for file in found:
        if suffix(file) not in READERS:
            raise ValueError(
                f"{file} (data.{split}) must end in {', '.join(READERS)}, also with .gz."
            )
        if suffix(file) != suffix(found[0]):
            raise ValueError(f"data.{split} mixes kinds of files: {', '.join(found[:4])}.")
    return found
