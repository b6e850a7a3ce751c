"""Questions with their contexts and answers, as files and data sets hold them, one by one."""

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..read_table import read_table, suffix


class Unusable(ValueError):
    """What is wrong with a row: a whole sentence that begins after the name of the row."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: as the file has it, or the row's number.
        question: its text.
        context: the text that holds the answer.
        texts: all right answers.
        starts: where in the context each of them begins, counted in letters.
        given: whether the row says anything of answers, be it that there is none.
        impossible: whether it says that there is none.
    """

    id: str
    question: str
    context: str
    texts: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    given: bool = False
    impossible: bool = False


def rows_of_file(file: str, columns: Any = None) -> Iterator[dict[str, Any]]:
    """The rows of a file: of SQuAD's json one for each question, else those of a table.

    Raises:
        ValueError: for a file that cannot be read as what its name says.
    """
    if suffix(file) == ".json":
        opener = gzip.open if file.endswith(".gz") else open
        try:
            with opener(file, "rt", encoding="utf-8-sig") as opened:
                content = json.load(opened)
        except (ValueError, OSError, EOFError):
            # One row in each line, or something that `read_table` explains.
            content = None
        if isinstance(content, dict) and isinstance(content.get("data"), list):
            yield from _rows_of_squad(file, content["data"])
            return
    for row in read_table([file], columns):
        yield dict(row)


def _rows_of_squad(file: str, articles: list[Any]) -> Iterator[dict[str, Any]]:
    for i, article in enumerate(articles):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            raise ValueError(
                f"Entry {i} of `data` in {file} has no list `paragraphs`: SQuAD's json has "
                '{"data": [{"paragraphs": [{"context": ..., "qas": [...]}]}]}.'
            )
        for j, paragraph in enumerate(paragraphs):
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
                raise ValueError(f"Paragraph {j} of entry {i} of {file} has no list `qas`.")
            for row in paragraph["qas"]:
                yield {**row, "context": paragraph.get("context")}


def parsed(row: Mapping[str, Any], names: Mapping[str, str], number: int) -> Question:
    """The question of a row.

    Args:
        row: as its file has it.
        names: of the entries `id`, `question`, `context`, `answers`, `answer_text` and
            `answer_start`.
        number: of the row, for one without an id.

    Raises:
        Unusable: for a row without a question or a context, and for an answer that is not where
            the row says.
    """
    context = _text(row, names["context"])
    question = _text(row, names["question"]).strip()
    found, given = _answers(row, names)
    impossible = row.get("is_impossible") in (True, "true", "True", 1)
    texts, starts = [], []
    for text, start in () if impossible else found:
        at = _place(start, text)
        there = context[at : at + len(text)] if at >= 0 else ""
        if there != text:
            elsewhere = context.find(text)
            where = f"; it begins at {elsewhere}" if elsewhere >= 0 else ", nor anywhere else in it"
            raise Unusable(
                f"says that its answer {text[:60]!r} begins at letter {at} of its context, where "
                f"{there[:60]!r} stands{where}. Correct `answer_start` or the answer."
            )
        texts.append(text)
        starts.append(at)
    name = row.get(names["id"])
    own = str(number) if name is None else str(name)
    return Question(own, question, context, texts, starts, given or impossible, impossible)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise Unusable(f"must hold a text in {name!r}, got {value!r} ({type(value).__name__}).")
    if not value.strip():
        raise Unusable(f"has an empty text in {name!r}. Write one, or take the row out.")
    return value


def _place(start: Any, text: str) -> int:
    try:
        return int(start)
    except (TypeError, ValueError) as error:
        raise Unusable(
            f"must say at which letter of the context its answer {text[:60]!r} begins, a whole "
            f"number in `answer_start`, got {start!r}."
        ) from error


def _answers(
    row: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[list[tuple[str, Any]], bool]:
    """All answers with their places, and whether the row says anything of answers."""
    value = row.get(names["answers"])
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise Unusable(
                f"must hold json in {names['answers']!r}, as in "
                f'{{"text": ["Rome"], "answer_start": [12]}}, got {value[:60]!r}.'
            ) from error
    if value is None or value == "":
        text, start = row.get(names["answer_text"]), row.get(names["answer_start"])
        if text is None:
            return [], value == ""
        return ([(str(text), start)] if str(text).strip() else []), True
    if isinstance(value, Mapping):
        texts, starts = _listed(value.get("text")), _listed(value.get("answer_start"))
        if len(texts) != len(starts):
            raise Unusable(f"has {len(texts)} answers, but {len(starts)} places where they begin.")
        pairs = list(zip(texts, starts, strict=True))
    elif isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        pairs = [(one.get("text"), one.get("answer_start")) for one in value]
    else:
        raise Unusable(
            f"must hold answers with `text` and `answer_start` in {names['answers']!r}, got "
            f"{str(value)[:60]!r}."
        )
    for text, _ in pairs:
        if not isinstance(text, str) or not text.strip():
            raise Unusable(f"has an empty answer ({text!r}). Leave it out of the list.")
    return pairs, True


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def named(file: str) -> str:
    """A file as errors name it."""
    return str(Path(file))
