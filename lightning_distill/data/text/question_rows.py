"""Questions with the text that answers them: one form for all files, and windows of tokens."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..ragged import Ragged
from ..tokens import kept_tokens, LEAST, texts_fingerprint
from .rows import Rows, UNLABELLED

# The columns of the one form.
COLUMNS = ("question", "context", "texts", "starts")


def read_question(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any] | str:
    """A row of a table in one form, or what is wrong with it.

    Args:
        row: with the answers as SQuAD has them on the hub (`{text: [..], answer_start: [..]}`), as
            a list of `{text, answer_start}`, or in two columns.
        names: from `question`, `context`, `answers`, `answer` and `answer_start` to columns.

    Returns:
        `question`, `context`, and `texts` and `starts`, one for each right answer: none if the
        context does not answer it, and `None` for a row without a label.
    """
    question, context = row.get(names["question"]), row.get(names["context"])
    for what, value in (("question", question), ("context", context)):
        if not isinstance(value, str) or not value.strip():
            return f"must hold a text in {names[what]!r}, got {value!r}."
    given = row.get(names["answers"])
    if given is None and row.get(names["answer"]) not in (None, ""):
        given = {"text": row[names["answer"]], "answer_start": row.get(names["answer_start"])}
    elif given is None and names["answers"] not in row and names["answer"] not in row:
        return {"question": question, "context": context, "texts": None, "starts": None}
    elif given is None:
        # An empty cell: the context does not answer it.
        given = []
    try:
        texts, starts = _answers(given)
    except (TypeError, ValueError, KeyError):
        return (
            "must hold answers as {text: [..], answer_start: [..]} or as a text and where it "
            f"starts, got {str(given)[:80]!r}."
        )
    for text, start in zip(texts, starts, strict=True):
        if context[start : start + len(text)] != text or start < 0:
            at = context.find(text)
            hint = f" It stands at {at}." if at >= 0 else " The context does not hold it."
            return (
                f"says that its answer {text[:60]!r} starts at letter {start} of the context, "
                f"where {context[max(start, 0) : max(start, 0) + len(text)][:60]!r} stands.{hint}"
            )
    return {"question": question, "context": context, "texts": texts, "starts": starts}


def _answers(given: Any) -> tuple[list[str], list[int]]:
    if isinstance(given, str):
        # Tables of text hold lists in json.
        given = json.loads(given)
    if isinstance(given, Mapping):
        texts, starts = given["text"], given["answer_start"]
        texts = [texts] if isinstance(texts, str) else list(texts)
        starts = [starts] if isinstance(starts, int | str | float) else list(starts)
    else:
        texts = [one["text"] for one in given]
        starts = [one["answer_start"] for one in given]
    if len(texts) != len(starts) or not all(isinstance(t, str) and t for t in texts):
        raise ValueError
    if any(float(start) != int(float(start)) for start in starts):
        raise ValueError
    return texts, [int(float(start)) for start in starts]


def questions_of_squad(content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The questions of a file of SQuAD, version 1 or 2, each with its id.

    Raises:
        KeyError: for a file that is not built so.
        TypeError: the same.
    """
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                row = {"question": asked["question"], "context": paragraph["context"]}
                if "answers" in asked:
                    none = asked.get("is_impossible", False)
                    row["answers"] = [] if none else asked["answers"]
                yield str(asked.get("id", "without an id")), row


def windows_of(
    questions: Sequence[str],
    contexts: Sequence[str],
    tokenizer: Any,
    max_length: int,
    stride: int,
    max_question_length: int,
) -> dict[str, Ragged]:
    """Tokens of each question with a part of its context, in windows that overlap.

    Args:
        questions: one for each row; they are cut.
        contexts: of the same rows.
        tokenizer: a fast one, which says where in the text a token stands.
        max_length: of a window, in tokens.
        stride: by how many tokens of the context two windows overlap.
        max_question_length: of a question, in tokens.

    Returns:
        `input_ids` and what comes with it; `begins` and `ends`: where in the context a token
        stands, the begin counted from 1, and 0 for tokens that are not of it; and `of_row`.

    Raises:
        ValueError: for a tokenizer that is written in Python, or that pads on the left.
    """
    if not tokenizer.is_fast or tokenizer.padding_side != "right":
        raise ValueError(
            f"{type(tokenizer).__name__} "
            + ("pads on the left" if tokenizer.is_fast else "does not say where its tokens stand")
            + ", so that places of tokens cannot be learnt: take a fast tokenizer that pads on "
            "the right."
        )

    def tokens(batch: Mapping[str, list[Any]]) -> dict[str, list[list[int]]]:
        asked = [_shortened(q, tokenizer, max_question_length) for q in batch["questions"]]
        encoded = tokenizer(
            asked,
            batch["contexts"],
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        found = dict(encoded.items())
        offsets, of_row = found.pop("offset_mapping"), found.pop("overflow_to_sample_mapping")
        found["begins"], found["ends"] = [], []
        for i, own in enumerate(offsets):
            parts = encoded.sequence_ids(i)
            there = [part == 1 and b < e for part, (b, e) in zip(parts, own, strict=True)]
            found["begins"].append(
                [b + 1 if t else 0 for t, (b, _) in zip(there, own, strict=True)]
            )
            found["ends"].append([e if t else 0 for t, (_, e) in zip(there, own, strict=True)])
        found["of_row"] = [[batch["number"][row]] for row in of_row]
        return found

    kind = f"questions, {stride}, {max_question_length}"
    name = texts_fingerprint([[kind], list(questions), list(contexts)], tokenizer, max_length)
    columns: dict[str, list[Any]] = {
        "questions": list(questions),
        "contexts": list(contexts),
        "number": list(range(len(questions))),
    }
    return kept_tokens(columns, tokens, name, keep=len(questions) >= LEAST, batch_size=200)


def _shortened(question: str, tokenizer: Any, most: int) -> str:
    question = question.strip()
    encoded = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    return question if len(offsets) <= most else question[: offsets[most - 1][1]]


def places_of(
    begins: Ragged, ends: Ragged, of_row: np.ndarray, rows: Sequence[Mapping[str, Any]]
) -> torch.Tensor:
    """The tokens at which the first right answer begins and ends in each window, `(windows, 2)`.

    Both are 0 where a window does not hold the whole answer, and -100 without a label.
    """
    found = np.zeros((len(begins), 2), dtype=np.int64)
    for window, row in enumerate(of_row.tolist()):
        texts, starts = rows[row]["texts"], rows[row]["starts"]
        if texts is None:
            found[window] = UNLABELLED
        elif texts:
            first, last = starts[0] + 1, starts[0] + len(texts[0])
            begin, end = begins[window], ends[window]
            holds = np.flatnonzero((begin > 0) & (end >= first) & (begin <= last))
            inside = begin[begin > 0].min(initial=last + 1) <= first and end.max() >= last
            if len(holds) and inside:
                found[window] = holds[0], holds[-1]
    return torch.from_numpy(found)


class QuestionRows(Rows):
    """Windows of questions; what a metric reads of them comes with their tokens.

    Args:
        of_row: the question that each window is of, shape (windows,).
        first: the number of the first of these questions among those of all splits.
    """

    def __init__(
        self,
        student: dict[str, Ragged],
        labels: torch.Tensor,
        of_row: np.ndarray,
        first: int,
    ):
        super().__init__(student, None, labels, torch.arange(len(of_row)))
        self.of_row, self.first = of_row, first

    def __getitem__(self, chosen: list[int]) -> dict[str, Any]:
        found = super().__getitem__(chosen)
        asked = np.asarray(chosen, dtype=np.int64)
        numbers = self.numbers.numpy()[np.where(asked < 0, -asked - 1, asked)]
        found["question"] = torch.from_numpy(self.of_row[numbers].astype(np.int64) + self.first)
        return found

    def keeping_labels(self, count: int, seed: int) -> Rows:
        """All windows, but the answers of only `count` questions, in all of their windows."""
        generator = torch.Generator().manual_seed(seed)
        labelled = np.unique(self.of_row[self.numbers[self.has_label].numpy()])
        order = torch.randperm(len(labelled), generator=generator)
        kept = np.isin(self.of_row, labelled[order[:count].numpy()])
        labels = self.labels.clone()
        labels[torch.from_numpy(~kept)] = UNLABELLED
        return self._with(labels=labels)
