"""Questions, contexts and answers from files: SQuAD's json, and tables."""

import json
from collections.abc import Sequence
from typing import Any

import datasets

from ...find_files import Files, find_files
from ..read_table import READERS, suffix
from .questions import Questions
from .read_questions import rows_of_file


class QuestionFiles(Questions):
    """Questions from files; the kind of a file is told by its name and by what it holds.

    A `.json` file with an entry `data` is read as SQuAD's, of version 1 or 2. Any other, and csv,
    tsv, jsonl and parquet files, hold a question in each row.

    Args:
        train: a file, a pattern with `*`, or a list of them.
        validation: the same; by default the questions of some contexts, cut from the training rows.
        test: the same; by default the validation rows.
        columns: names of the columns of csv and tsv files that have no header.
        options: those of [`Questions`][].

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for files that cannot be read as what their name says, and as [`Questions`][].
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

    def load(self) -> dict[str, datasets.Dataset]:
        """Read every file that was named."""
        return {
            split: self._read(split, files)
            for split, files in self.files.items()
            if files is not None
        }

    def _read(self, split: str, given: Files) -> datasets.Dataset:
        rows: list[dict[str, Any]] = []
        for file in find_files(split, given):
            if suffix(file) not in READERS:
                raise ValueError(
                    f"{file} (data.{split}) must end in {', '.join(READERS)}, also with .gz."
                )
            rows += [{**row, "file": file} for row in rows_of_file(file, self.columns)]
        wanted = {*self.names.values(), "is_impossible", "file"}
        names = [n for n in dict.fromkeys(n for row in rows for n in row) if n in wanted]
        # Answers are lists in one file and numbers in another: a column holds one type.
        columns = {n: [_plain(row.get(n)) for row in rows] for n in names}
        return datasets.Dataset.from_dict(columns)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else json.dumps(value)
