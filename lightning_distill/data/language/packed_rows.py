"""Rows of documents for language models, and how some of them become a batch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..ragged import Ragged

IGNORED = -100
# What padding holds; the pad token's id is its tokenizer's.
FILL = {"labels": IGNORED, "spans": -1}


def following(
    tokens: Mapping[str, Ragged],
) -> dict[str, Ragged]:
    """What is predicted at each token: `input_ids`, `labels` and `label_bytes`.

    A label is the token that follows in the document; -100 at its end, and where the token that
    follows is not to be learnt.

    Args:
        tokens: `input_ids` of the documents, the `bytes` of each token, and, where not all of them
            are to be learnt, `learnt`.
    """
    ids, bytes_ = tokens["input_ids"], tokens["bytes"]
    predicted = np.ones(len(ids.values), dtype=bool)
    if "learnt" in tokens:
        predicted[:-1] = tokens["learnt"].values[1:]
    ends = ids.offsets[1:][ids.lengths > 0] - 1
    predicted[ends] = False
    labels = np.full(len(ids.values), IGNORED, dtype=np.int32)
    sizes = np.zeros(len(ids.values), dtype=np.int32)
    labels[:-1][predicted[:-1]] = ids.values[1:][predicted[:-1]]
    sizes[:-1][predicted[:-1]] = bytes_.values[1:][predicted[:-1]]
    return {
        "input_ids": Ragged(ids.values, ids.offsets),
        "labels": Ragged(labels, ids.offsets),
        "label_bytes": Ragged(sizes, ids.offsets),
    }


def _counts(spans: Ragged) -> np.ndarray:
    """How many spans each piece has; they are numbered from 0."""
    highest = np.full(len(spans), -1, dtype=np.int64)
    np.maximum.at(highest, np.repeat(np.arange(len(spans)), spans.lengths), spans.values)
    return highest + 1


class PackedRows(Dataset):
    """Rows that each hold pieces of documents; indexed by a list of row numbers, it gives a batch.

    Args:
        student: `input_ids`, `labels` and `label_bytes` of every piece, see [`following`][].
        teacher: the same of the same texts by the teacher's tokenizer, if it is another one.
        rows: the numbers of each row's pieces.
        width: tokens of a row that holds several pieces: the batch has `position_ids`, which begin
            anew with each piece, and no `attention_mask`. `None` for rows of one piece, which are
            padded to the longest, with an `attention_mask`.
        pad: the ids of the student's and of the teacher's pad token.
    """

    def __init__(
        self,
        student: dict[str, Ragged],
        teacher: dict[str, Ragged] | None,
        rows: Ragged,
        width: int | None,
        pad: tuple[int, int],
    ):
        self.student, self.teacher, self.rows = student, teacher, rows
        # How many spans each piece has, by which those of a row are numbered on.
        self._spans = _counts(student["spans"]) if "spans" in student else None
        self.width, self.pad = width, pad

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """Of every row in tokens, by the tokenizer that makes more of it, shape (rows,)."""
        if self.width is not None:
            return np.full(len(self), self.width, dtype=np.int64)
        sides = [self.student] if self.teacher is None else [self.student, self.teacher]
        longest = np.maximum.reduce([side["input_ids"].lengths for side in sides])
        return longest[self.rows.values]

    def __getitem__(self, chosen: Sequence[int]) -> dict[str, Any]:
        asked = np.asarray(chosen, dtype=np.int64)
        numbers = np.where(asked < 0, -asked - 1, asked)
        pieces = self.rows.take(numbers)
        batch: dict[str, Any] = dict(self._side(self.student, pieces, self.pad[0]))
        batch["row"] = torch.from_numpy(np.where(asked < 0, -1, numbers))
        if self.teacher is not None:
            batch["teacher"] = self._side(self.teacher, pieces, self.pad[1])
        return batch

    def _side(self, side: dict[str, Ragged], pieces: Ragged, pad: int) -> dict[str, torch.Tensor]:
        lengths = side["input_ids"].lengths[pieces.values]
        begins = np.concatenate([[0], np.cumsum(lengths)])
        # How many tokens the pieces of a row have together.
        per_row = np.diff(begins[pieces.offsets])
        width = self.width or 0
        batch = {}
        for name, tokens in side.items():
            values = tokens.take(pieces.values).values
            if name == "spans":
                values = self._numbered_on(values, pieces, lengths)
            fill = {"input_ids": pad, **FILL}.get(name, 0)
            batch[name] = Ragged.split(values, per_row).padded(fill, width=width)
        if self.width is None:
            ones = Ragged.split(np.ones(begins[-1], dtype=np.int64), per_row)
            batch["attention_mask"] = ones.padded(0)
        else:
            positions = np.arange(begins[-1]) - np.repeat(begins[:-1], lengths)
            # Each token of the padding is a document of its own, at position 0.
            batch["position_ids"] = Ragged.split(positions, per_row).padded(0, width=width)
        return batch

    def _numbered_on(self, spans: np.ndarray, pieces: Ragged, lengths: np.ndarray) -> np.ndarray:
        assert self._spans is not None
        counts = self._spans[pieces.values]
        before = np.concatenate([[0], np.cumsum(counts)])
        in_row = before[:-1] - np.repeat(before[pieces.offsets[:-1]], pieces.lengths)
        return np.where(spans >= 0, spans + np.repeat(in_row, lengths), spans)

    def contents(self) -> Iterator[bytes]:
        """All tokens and labels, in one form whatever types they are held in."""
        for tokens in (*self.student.values(), self.rows):
            yield from tokens.contents()

    def token_counts(self) -> tuple[int, int, int]:
        """How many tokens there are, how many are predicted, and the bytes of those."""
        taken = self.rows.values
        labels = self.student["labels"].take(taken).values
        sizes = self.student["label_bytes"].take(taken).values
        return len(labels), int((labels != IGNORED).sum()), int(sizes.sum())
