"""Questions from files: those of SQuAD, and tables."""

import json
from pathlib import Path
from typing import Any

import datasets

from ...find_files import Files, find_files
from ..read_table import read_table, READERS, suffix
from .question_rows import questions_of_squad
from .questions import in_one_form, QuestionData


class QuestionFiles(QuestionData):
    """Questions of files; the kind of a file is told by its name and by what it holds.

    A file `.json` that holds `{"data": [{"paragraphs": [..]}]}` is one of SQuAD, version 1 or 2.
    Others are tables: csv, tsv, json, jsonl or parquet, with a question in each row.

    Args:
        train: a file, a pattern with `*`, or a list of them.
        validation: the same; by default cut from the training rows, with texts of its own.
        test: the same; by default the validation rows.
        options: those of [`QuestionData`][].

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for files that cannot be read as what their name says.
    """

    def __init__(
        self,
        train: Files,
        validation: Files | None = None,
        test: Files | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.files = {"train": train, "validation": validation, "test": test}

    def load(self) -> dict[str, datasets.Dataset]:
        """Read every file that was named."""
        return {
            split: self._load(split, files)
            for split, files in self.files.items()
            if files is not None
        }

    def _load(self, split: str, given: Files) -> datasets.Dataset:
        found = find_files(split, given)
        for file in found:
            if suffix(file) not in READERS:
                raise ValueError(
                    f"{file} (data.{split}) must end in {', '.join(READERS)}, also with .gz."
                )
        contents = [_squad(file) for file in found]
        if all(content is None for content in contents):
            return read_table(found)
        rows = []
        for file, content in zip(found, contents, strict=True):
            try:
                for name, row in questions_of_squad(content):
                    rows.append(self._read(split, f"Question {name} of {file}", row))
            except (KeyError, TypeError) as error:
                raise ValueError(
                    f"{file} is not built as SQuAD's files are: "
                    '{"data": [{"paragraphs": [{"context", "qas": [{"id", "question", '
                    f'"answers"}}]}}]}}]}}; it lacks {error}.'
                ) from error
        return in_one_form([row for row in rows if row is not None])


def _squad(file: str) -> Any:
    """What a file of SQuAD holds; `None` for a table."""
    if suffix(file) != ".json" or file.endswith(".gz"):
        return None
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError:
        # A table of lines, or broken: the reader of tables says so.
        return None
    return content if isinstance(content, dict) and "data" in content else None
