"""Sources and targets from files: csv, tsv, json, jsonl and parquet."""

from collections.abc import Sequence
from typing import Any

import datasets

from ...find_files import Files, find_files
from ..read_table import read_table, READERS, suffix
from .pairs import PairDataModule


class PairFiles(PairDataModule):
    """Rows from files; the kind of a file is told by its name.

    Args:
        train: a file, a pattern with `*`, or a list of them.
        validation: the same; by default cut from the training rows.
        test: the same; by default the validation rows.
        columns: names of the columns of csv and tsv files that have no header.
        options: those of [`PairDataModule`][lightning_distill.data.PairDataModule].

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
        if isinstance(columns, str):
            raise ValueError(
                f"`columns` must be a list of names, as in [source,target], got {columns!r}."
            )
        self.columns = None if columns is None else list(columns)

    def load(self) -> dict[str, datasets.Dataset]:
        """Read every file that was named."""
        found = {}
        for split, files in self.files.items():
            if files is None:
                continue
            paths = find_files(split, files)
            wrong = [path for path in paths if suffix(path) not in READERS]
            if wrong or len({suffix(path) for path in paths}) > 1:
                raise ValueError(
                    f"data.{split} must be files of one kind, which end in {', '.join(READERS)}, "
                    f"also with .gz; got {', '.join(wrong or paths[:4])}."
                )
            found[split] = read_table(paths, self.columns)
        return found

    def origin(self, split: str) -> str:
        """The split and its files."""
        return f"the {split} data ({self.files[split]})"
