"""Sentences, pairs with a score, and queries with candidates, from files."""

import math
from collections.abc import Sequence
from typing import Any

import datasets

from ...find_files import Files, find_files
from ..read_table import read_table
from .sentences import (
    number_or_nan,
    RELEVANCE,
    SCORE,
    SCORES,
    Sentences,
    strings,
    TEXTS,
    VECTORS,
)


class EmbeddingFiles(Sentences):
    """Texts from csv, tsv, json, jsonl and parquet files, for models of vectors, and rerankers.

    What is learnt follows from the columns: `text` alone compares vectors; `text` and `text_pair`
    with a score are pairs; `text` (a query), `text_pair` (what belongs to it) and `negatives` are
    lists of candidates. A pair without a score has no label. A row without one of its texts, with a
    score that is no number, or with a teacher's vector or score that is missing is a bad row.

    Args:
        train: a file, a pattern with `*`, or a list of them.
        validation: the same; by default cut from the training rows.
        test: the same; by default the validation rows.
        text: column of the text, the first of the pair, or the query.
        text_pair: column of the second text, or of the candidate that belongs to the query; it may
            hold a list of candidates, of which the first belongs to it if `relevance` says nothing.
        negatives: columns of candidates that do not; a column may hold a list of them.
        relevance: column of a list of numbers, how relevant each candidate is; empty where that is
            unknown.
        score: column of how alike the two are; `None` if there is none.
        vectors: column of the teacher's vector of the text, or of a list of vectors, one for each
            text of the row.
        scores: column of the teacher's score of the candidate, or of a list, one for each.
        columns: names of the columns of csv and tsv files that have no header.
        options: those of [`Sentences`][].

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for columns that are not there, and for bad rows, naming file and row.
    """

    def __init__(
        self,
        train: Files,
        validation: Files | None = None,
        test: Files | None = None,
        text: str = "text",
        text_pair: str | None = None,
        negatives: str | Sequence[str] | None = None,
        score: str | None = "score",
        vectors: str | None = None,
        scores: str | None = None,
        columns: Sequence[str] | None = None,
        relevance: str | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.files = {"train": train, "validation": validation, "test": test}
        several = [negatives] if isinstance(negatives, str) else list(negatives or ())
        if several and text_pair is None:
            raise ValueError(
                "`negatives` are candidates that do not belong to the text: name the column of the "
                "one that does, as in data.text_pair=positive."
            )
        self.text_columns = [text, *([] if text_pair is None else [text_pair]), *several]
        self.score = None if text_pair is None or several or relevance else score
        # Without, nobody is told that no row has any.
        self.label = None if self.score is None else SCORE
        self.vectors, self.scores, self.relevance = vectors, scores, relevance
        self.columns = None if columns is None else list(columns)
        for name, column in ((SCORES, scores), (RELEVANCE, relevance)):
            if column is not None and text_pair is None:
                raise ValueError(
                    f"`{name}` are of candidates, and there are none: set data.text_pair."
                )
        if vectors is not None and self.pairs:
            raise ValueError(
                "`vectors` are of single texts, and a ranking reads pairs: name a teacher's "
                "scores, as in data.scores=COLUMN, and leave data.vectors=null."
            )

    def load(self) -> dict[str, datasets.Dataset]:
        """Read every file that was named."""
        return {
            split: self._read(split, find_files(split, files))
            for split, files in self.files.items()
            if files is not None
        }

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        return {**super().preprocessing(), "text": ", ".join(self.text_columns)}

    def _read(self, split: str, files: Sequence[str]) -> datasets.Dataset:
        found: dict[str, list[Any]] = {TEXTS: [], SCORE: []}
        found |= {VECTORS: []} if self.vectors else {}
        found |= {SCORES: []} if self.scores else {}
        found |= {RELEVANCE: []} if self.relevance else {}
        self._width: int | None = None
        for file in files:
            table = read_table([file], self.columns)
            score = self._columns(table, file)
            for i, row in enumerate(table):
                try:
                    made = self._row(row, score)
                except ValueError as error:
                    self.bad_rows.add(split, f"Row {i} of {file} {error}")
                    continue
                for name, value in made.items():
                    found[name].append(value)
        if not found[TEXTS]:
            self.bad_rows.say({})
            raise ValueError(f"{', '.join(files)} (data.{split}) has no rows.")
        return datasets.Dataset.from_dict(found)

    def _columns(self, table: datasets.Dataset, file: str) -> str | None:
        """Refuse a file without a column that was named; the column of scores, if it is there."""
        options = ["text", "text_pair", *["negatives"] * len(self.text_columns)]
        wanted = dict(zip(self.text_columns, options, strict=False))
        named = ((self.vectors, VECTORS), (self.scores, SCORES), (self.relevance, RELEVANCE))
        for name, option in named:
            wanted |= {} if name is None else {name: option}
        for name, option in wanted.items():
            if name not in table.column_names:
                raise ValueError(
                    f"{file} has no column {name!r} (data.{option}); it has "
                    f"{', '.join(table.column_names)}. Name the one that is meant, as in "
                    f"data.{option}={table.column_names[0]}; a file without a header needs "
                    "data.columns=[text,text_pair,score]."
                )
        return self.score if self.score in table.column_names else None

    def _row(self, row: dict[str, Any], score: str | None) -> dict[str, Any]:
        texts: list[Any] = []
        for column in self.text_columns:
            of_column = strings(row[column])
            for value in of_column:
                if not isinstance(value, str) or not value.strip():
                    raise ValueError(
                        f"must hold a text in column {column!r}, got {value!r}. Write the text, or "
                        "remove the row."
                    )
            if not of_column:
                raise ValueError(f"has an empty list in column {column!r}; name one text at least.")
            texts += of_column
        made: dict[str, Any] = {TEXTS: texts, SCORE: None}
        if score is not None:
            number = number_or_nan(row[score])
            if number is None:
                raise ValueError(
                    f"must hold a number in column {score!r} (data.score), or nothing where the "
                    f"pair has no score, got {row[score]!r}."
                )
            made[SCORE] = None if math.isnan(number) else number
        if self.vectors is not None:
            made[VECTORS] = self._vectors(row[self.vectors], len(texts))
        if self.scores is not None:
            column = f"{self.scores!r} (data.scores)"
            made[SCORES] = _numbers(row[self.scores], len(texts) - 1, column)
        if self.relevance is not None:
            column, given = f"{self.relevance!r} (data.relevance)", row[self.relevance]
            unknown = [None] * (len(texts) - 1)
            made[RELEVANCE] = unknown if given is None else _numbers(given, len(unknown), column)
        return made

    def _vectors(self, value: Any, count: int) -> list[list[float]]:
        given = value if isinstance(value, list) else []
        rows = given if given and isinstance(given[0], list) else [given]
        numbers = [[number_or_nan(v) for v in vector] for vector in rows]
        self._width = self._width or (len(numbers[0]) if numbers else 0)
        fit = len(numbers) == count and all(len(v) == self._width > 0 for v in numbers)
        if not fit or any(v is None or math.isnan(v) for vector in numbers for v in vector):
            shown = str(value)
            raise ValueError(
                f"must hold {count} vector{'s' if count > 1 else ''} of {self._width or 'some'} "
                f"numbers in column {self.vectors!r} (data.vectors), got {shown[:60]}"
                f"{'...' if len(shown) > 60 else ''}."
            )
        return numbers  # type: ignore[return-value]


def _numbers(value: Any, count: int, column: str) -> list[float]:
    numbers = [number_or_nan(v) for v in strings(value)]
    if len(numbers) != count or any(v is None or math.isnan(v) for v in numbers):
        raise ValueError(
            f"must hold {count} number{'s' if count > 1 else ''} in column {column}, one for each "
            f"candidate, got {value!r}."
        )
    return numbers  # type: ignore[return-value]
