"""A corpus for language models from files of text."""

import gzip
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import groupby
from typing import Any

import datasets

from ...find_files import Files, find_files
from ..bad_rows import BadRows
from ..read_table import READERS, rows_of, suffix
from .language_model import LanguageModelData

DOCUMENTS = ("file", "line", "paragraph")


class TextCorpus(LanguageModelData):
    """Documents from files of text, or from the column `text` of tables.

    Files that end in .csv, .tsv, .json, .jsonl or .parquet are tables, each row of which is a
    document; all others are text in UTF-8. Either may be packed: .gz.

    Args:
        train: a file, a folder, a pattern with `*` (`**` for folders within folders), or a list of
            them. A folder stands for all files in it and below.
        validation: the same; by default documents are cut from the training data.
        test: the same; by default the validation data.
        document: what one is in a file of text: the whole `file`, a `line`, or a `paragraph`, which
            ends at an empty line.
        text: column of tables that holds the text.
        options: those of [`LanguageModelData`][].

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for files that are empty or not UTF-8, and for tables without that column.
    """

    def __init__(
        self,
        train: Files,
        validation: Files | None = None,
        test: Files | None = None,
        document: str = "file",
        text: str = "text",
        **options: Any,
    ):
        super().__init__(**options)
        if document not in DOCUMENTS:
            raise ValueError(f"`document` must be one of {', '.join(DOCUMENTS)}, got {document!r}.")
        self.files = {"train": train, "validation": validation, "test": test}
        self.document, self.text = document, text

    def load(self) -> dict[str, datasets.Dataset]:
        """Read every file that was named."""
        return self.held_splits(self.files, ("text",))

    def documents(self, split: str, epoch: int | None = None) -> Iterator[dict[str, Any]]:
        """The documents of a split, one after the other."""
        given = self.files[split]
        if given is None:
            return
        files = find_files(split, given, folders=True)
        bad_rows, found = self.bad_rows_of(epoch), False
        for file in self.in_order_of(files, epoch):
            if suffix(file) in READERS:
                streaming = epoch is not None
                texts = table_texts(file, self.text, split, bad_rows, streaming)
            else:
                texts = self._texts(file, split, bad_rows)
            for text in texts:
                found = True
                yield {"text": text}
        if not found:
            bad_rows.say({})
            raise ValueError(
                f"There is no text in {', '.join(files[:4])} (data.{split}): only empty lines."
            )

    def _texts(self, file: str, split: str, bad_rows: BadRows) -> Iterator[str]:
        try:
            yield from file_texts(file, self.document)
        except ValueError as error:
            # Of a file with many documents nobody knows how many would be left out.
            if self.document != "file":
                raise
            bad_rows.add(split, str(error))


def file_texts(file: str, document: str = "file") -> Iterator[str]:
    """The documents of a file of text; empty ones are left out.

    Args:
        file: in UTF-8; packed if it ends in .gz.
        document: `file`, `line` or `paragraph`. Of the last two only one at a time is in memory.

    Raises:
        ValueError: if it is not UTF-8 or cannot be unpacked.
    """
    opener = gzip.open if file.endswith(".gz") else open
    try:
        with opener(file, "rt", encoding="utf-8-sig") as lines:
            if document == "file":
                text = lines.read()
                texts: Iterable[str] = [text] if text.strip() else []
            elif document == "line":
                texts = (line.rstrip("\n") for line in lines if line.strip())
            else:
                texts = (
                    "".join(block).rstrip("\n")
                    for filled, block in groupby(lines, lambda line: bool(line.strip()))
                    if filled
                )
            yield from texts
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{file} cannot be read as text in UTF-8: {error}. Save it as UTF-8, or name other "
            "files; a table must end in " + ", ".join(READERS) + "."
        ) from error


def table_texts(
    file: str, column: str, split: str, bad_rows: BadRows, streaming: bool = False
) -> Iterator[str]:
    """The texts of a column of a table; empty ones are left out.

    Args:
        file: the table.
        column: that holds the texts.
        split: the data's.
        bad_rows: is told of rows that hold something else than text there.
        streaming: hold nothing.

    Raises:
        ValueError: if there is no such column, or for a bad row.
    """
    for number, row in enumerate(rows_of([file], streaming)):
        if column not in row:
            near = get_close_matches(column, row, n=1)
            hint = f" Did you mean data.text={near[0]}?" if near else ""
            raise ValueError(
                f"{file} (data.{split}) has no column {column!r} (data.text); it has "
                f"{', '.join(row)}.{hint}"
            )
        text = row[column]
        if not isinstance(text, str):
            bad_rows.add(
                split,
                f"Column {column!r} of {file} (data.{split}) must hold text, but row {number} "
                f"holds {text!r} ({type(text).__name__}).",
            )
        elif text.strip():
            yield text
