"""Long contexts in windows that overlap, each read with its question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..ragged import Ragged
from ..tokens import kept_tokens, LEAST, texts_fingerprint

PARTS = ("starts", "ends", "windows")


@dataclass(frozen=True)
class Windows:
    """The windows of some questions.

    Attributes:
        tokens: `input_ids` and what comes with it, of each window, and `answer_mask`: 1 for tokens
            of the context, and for the one that stands for no answer.
        starts: where in the context each token begins, counted in letters; -1 outside of it.
        ends: where it ends.
        nulls: of each window, the position that stands for no answer, shape (windows,).
        questions: of each window, the number of its question, shape (windows,).
    """

    tokens: dict[str, Ragged]
    starts: Ragged
    ends: Ragged
    nulls: np.ndarray
    questions: np.ndarray


def windows_of(
    questions: Sequence[str],
    contexts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    stride: int,
) -> Windows:
    """All questions with as many windows of their contexts as these need.

    What is made is kept, as that of [`tokenise`][]. A question that would leave less than half of
    the room beside the overlap to its context is cut.

    Args:
        questions: their texts.
        contexts: of each of them.
        tokenizer: a fast one, which says where in a text a token stands.
        max_length: of a window, in tokens.
        stride: how many tokens of a context two windows share.

    Raises:
        ValueError: for a tokenizer that is written in Python, or that pads before a text.
    """
    name = type(tokenizer).__name__
    if not tokenizer.is_fast:
        raise ValueError(
            f"{name} does not say where in a text its tokens stand, so that no answer can be found "
            "again: take a fast tokenizer, with a file tokenizer.json."
        )
    if tokenizer.padding_side == "left":
        raise ValueError(
            f"{name} pads before a text, which moves the positions of answers: set "
            'padding_side to "right" in its tokenizer_config.json.'
        )
    room = (max_length - tokenizer.num_special_tokens_to_add(pair=True) - stride) // 2
    if room < 1:
        raise ValueError(
            f"data.max_length={max_length} leaves no room for a question beside an overlap of "
            f"data.stride={stride} tokens: lower data.stride, or raise data.max_length."
        )

    def tokens(batch: Mapping[str, list[str]]) -> dict[str, list[list[int]]]:
        asked = _cut(batch["questions"], tokenizer, room)
        encoded = tokenizer(
            asked,
            batch["contexts"],
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        columns = dict(encoded.items())
        of = columns.pop("overflow_to_sample_mapping")
        offsets = columns.pop("offset_mapping")
        columns["starts"], columns["ends"] = [], []
        for i, row in enumerate(offsets):
            inside = [part == 1 for part in encoded.sequence_ids(i)]
            for which, side in enumerate(PARTS[:2]):
                pairs = zip(inside, row, strict=True)
                columns[side].append([place[which] if own else -1 for own, place in pairs])
        found: dict[str, list[list[int]]] = {n: [[] for _ in asked] for n in (*columns, PARTS[2])}
        for i, question in enumerate(of):
            for column, rows in columns.items():
                found[column][question] += rows[i]
            found[PARTS[2]][question].append(len(columns["input_ids"][i]))
        return found

    parts = [list(questions), list(contexts), ["windows", str(stride)]]
    kept = kept_tokens(
        {"questions": parts[0], "contexts": parts[1]},
        tokens,
        texts_fingerprint(parts, tokenizer, max_length),
        keep=len(questions) >= LEAST,
    )
    # One row of the table is a question: its windows one after the other, and how long each is.
    lengths = kept.pop(PARTS[2])
    cut = {n: Ragged.split(rows.values, lengths.values) for n, rows in kept.items()}
    starts, ends = cut.pop("starts"), cut.pop("ends")
    nulls = _nulls(cut["input_ids"], tokenizer.cls_token_id)
    mask = (starts.values >= 0).astype(np.int8)
    mask[starts.offsets[:-1] + nulls] = 1
    cut["answer_mask"] = Ragged(mask, starts.offsets)
    of_questions = np.repeat(np.arange(len(lengths)), lengths.lengths)
    return Windows(cut, starts, ends, nulls, of_questions)


def _cut(questions: Sequence[str], tokenizer: Any, most: int) -> list[str]:
    """Questions of at most so many tokens."""
    given = tokenizer(list(questions), add_special_tokens=False, return_offsets_mapping=True)
    return [
        question[: row[most - 1][1]] if len(row) > most else question
        for question, row in zip(questions, given["offset_mapping"], strict=True)
    ]


def _nulls(ids: Ragged, cls: int | None) -> np.ndarray:
    """The position of the token that stands for the whole text; the first where there is none."""
    found = np.zeros(len(ids), dtype=np.int64)
    if cls is not None:
        at = np.flatnonzero(ids.values == cls)
        rows = np.searchsorted(ids.offsets, at, side="right") - 1
        # The first of each row: what is written last stays.
        found[rows[::-1]] = (at - ids.offsets[rows])[::-1]
    return found


def ends_in_window(
    starts: np.ndarray, ends: np.ndarray, null: int, start: int, end: int
) -> tuple[int, int]:
    """First and last token of an answer in a window; twice `null` if it does not hold all of it.

    Args:
        starts: where in the context each token of the window begins; -1 outside of it.
        ends: where it ends.
        null: the position that stands for no answer.
        start: where the answer begins, counted in letters.
        end: the letter behind it.
    """
    inside = np.flatnonzero(starts >= 0)
    if not len(inside) or starts[inside[0]] > start or ends[inside[-1]] < end:
        return null, null
    first = inside[np.searchsorted(starts[inside], start, side="right") - 1]
    last = inside[np.searchsorted(ends[inside], end, side="left")]
    return int(first), int(last)
