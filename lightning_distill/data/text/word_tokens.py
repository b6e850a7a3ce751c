"""What a tokenizer makes of words, and which token is the first of each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..ragged import Ragged
from ..tokens import kept_tokens, LEAST, texts_fingerprint


def tokens_of_words(
    rows: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    stride: int | None = None,
) -> dict[str, Ragged]:
    """What a tokenizer makes of words with spaces between them, kept as texts are.

    Args:
        rows: the words of every row.
        tokenizer: a fast one, which says where in the text a token stands.
        max_length: longer rows are cut, in tokens; or read in windows of so many.
        stride: by how many tokens the windows of one row overlap; `None` cuts it.

    Returns:
        `input_ids` and what comes with it, for every row or window; `begun`: the number of the
        word, counted from 1, that a token is the first of, else 0; and with windows `of_row`, one
        number for each: its row. A word of two windows begins in that which shows more around it.
        A word of which the tokenizer makes nothing is read as one that it does not know.

    Raises:
        ValueError: for a tokenizer that is written in Python.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not say where in a text its tokens stand, so that "
            "tags cannot be given to them: take a fast tokenizer, with a file tokenizer.json."
        )

    def tokens(batch: Mapping[str, list[Any]]) -> dict[str, list[list[int]]]:
        words = batch["words"]
        found = _encoded(words, tokenizer, max_length, stride)
        lost = _unread(found, words)
        if any(lost) and tokenizer.unk_token is not None:
            shown = [
                [tokenizer.unk_token if j in unread else word for j, word in enumerate(row)]
                for row, unread in zip(words, lost, strict=True)
            ]
            found = _encoded(shown, tokenizer, max_length, stride)
        if stride is None:
            del found["of_row"]
        else:
            _begin_once(found)
            found["of_row"] = [[batch["number"][row]] for row in found["of_row"]]
        return found

    kind = "words" if stride is None else f"words, {stride}"
    parts = [[kind], ["\x1f".join(row) for row in rows]]
    name = texts_fingerprint(parts, tokenizer, max_length)
    columns: dict[str, list[Any]] = {"words": [list(row) for row in rows]}
    if stride is not None:
        columns["number"] = list(range(len(rows)))
    return kept_tokens(columns, tokens, name, keep=len(rows) >= LEAST)


def _encoded(
    rows: Sequence[Sequence[str]], tokenizer: Any, max_length: int, stride: int | None
) -> dict[str, Any]:
    """The tokens of each row or window, which word each begins, and the number of the row."""
    texts = [" ".join(row) for row in rows]
    windows = {} if stride is None else {"stride": stride, "return_overflowing_tokens": True}
    given = tokenizer(
        texts, truncation=True, max_length=max_length, return_offsets_mapping=True, **windows
    )
    found = dict(given.items())
    offsets = found.pop("offset_mapping")
    of_row = found.pop("overflow_to_sample_mapping", range(len(rows)))
    found["of_row"] = list(of_row)
    found["begun"] = [_begun(rows[row], own) for row, own in zip(of_row, offsets, strict=True)]
    return found


def _begun(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The number of the word, from 1, that each token is the first of, by its last letter; or 0."""
    ends = np.cumsum([len(word) + 1 for word in words])
    seen, found = 0, []
    for start, end in offsets:
        # Special tokens stand nowhere.
        word = int(np.searchsorted(ends, end - 1, side="right")) + 1 if end > start else 0
        found.append(word if word > seen else 0)
        seen = max(seen, word)
    return found


def _unread(found: Mapping[str, Any], rows: Sequence[Sequence[str]]) -> list[set[int]]:
    """For each row, places of words of which there is no token, though there is of a later one."""
    read: list[set[int]] = [set() for _ in rows]
    for row, begun in zip(found["of_row"], found["begun"], strict=True):
        read[row].update(word - 1 for word in begun if word)
    return [set(range(max(places, default=-1) + 1)) - places for places in read]


def _begin_once(found: dict[str, Any]) -> None:
    """Let a word that several windows of a row show begin in one of them: far from their ends."""
    best: dict[tuple[int, int], tuple[int, int]] = {}
    for window, (row, begun) in enumerate(zip(found["of_row"], found["begun"], strict=True)):
        for place, word in enumerate(begun):
            room = min(place, len(begun) - 1 - place)
            # The first of equals: a word that a window's begin cuts is no beginning.
            if word and room > best.get((row, word), (-1, 0))[0]:
                best[row, word] = room, window
    for window, (row, begun) in enumerate(zip(found["of_row"], found["begun"], strict=True)):
        begun[:] = [word if word and best[row, word][1] == window else 0 for word in begun]
