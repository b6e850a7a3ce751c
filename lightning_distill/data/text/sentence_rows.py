"""Rows of several texts each, and how some of them become a batch of texts."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..ragged import Ragged
from .rows import Collate, Rows


class SentenceRows(Rows):
    """Rows of one text or more; each text becomes a row of the batch, one row after the other.

    Args:
        student: tokens of all texts by the student's tokenizer.
        teacher: the same by the teacher's, if it is another one.
        labels: of every text, NaN without, shape (texts,).
        begins: the number of the first text of each row, and that of all texts, (rows + 1,).
        more: further columns of every text by the name that they have in a batch, (texts, ...).
        first_place: of the texts of a row; 1 where each is a pair of query and candidate.

    Attributes:
        firsts: as `begins`.
    """

    def __init__(
        self,
        student: dict[str, Ragged],
        teacher: dict[str, Ragged] | None,
        labels: torch.Tensor,
        begins: np.ndarray,
        more: dict[str, torch.Tensor] | None = None,
        first_place: int = 0,
    ):
        super().__init__(student, teacher, labels, torch.arange(len(begins) - 1))
        self.begins, self.more, self.first_place = begins, more or {}, first_place

    @property
    def lengths(self) -> np.ndarray:
        """Of every row the longest of its texts, in tokens, shape (chosen,)."""
        sides = [self.student] if self.teacher is None else [self.student, self.teacher]
        longest = np.maximum.reduce([side["input_ids"].lengths for side in sides])
        return np.maximum.reduceat(longest, self.begins[:-1])[self.numbers.numpy()]

    def __getitem__(self, chosen: list[int]) -> dict[str, Any]:
        asked = np.asarray(chosen, dtype=np.int64)
        numbers = self.numbers.numpy()[np.where(asked < 0, -asked - 1, asked)]
        sizes = self.begins[numbers + 1] - self.begins[numbers]
        place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        texts = np.repeat(self.begins[numbers], sizes) + place
        at, places = torch.from_numpy(texts), torch.from_numpy(place + self.first_place)
        return {
            "student": {k: v.take(texts) for k, v in self.student.items()},
            "teacher": self.teacher and {k: v.take(texts) for k, v in self.teacher.items()},
            "labels": self.labels[at],
            "row": torch.from_numpy(np.repeat(np.where(asked < 0, -1, numbers), sizes)),
            "more": {"place": places} | {k: v[at] for k, v in self.more.items()},
        }

    @property
    def has_label(self) -> torch.Tensor:
        """Which rows have a text with a score, shape (rows,)."""
        known = np.logical_or.reduceat((~self.labels.isnan()).numpy(), self.begins[:-1])
        return torch.from_numpy(known)[self.numbers]

    def contents(self) -> Iterator[bytes]:
        """All tokens, scores and further columns, and where each row begins."""
        yield from super().contents()
        yield self.begins.astype("<i8").tobytes()
        for name, column in sorted(self.more.items()):
            yield name.encode()
            yield column.numpy().tobytes()

    def keeping_labels(self, count: int, seed: int) -> Rows:
        """All rows, but only `count` of them with their scores."""
        generator = torch.Generator().manual_seed(seed)
        candidates = self.numbers[self.has_label]
        order = torch.randperm(len(candidates), generator=generator)
        kept = np.zeros(len(self.begins) - 1, dtype=bool)
        kept[candidates[order[:count]].numpy()] = True
        of_texts = torch.from_numpy(np.repeat(kept, np.diff(self.begins)))
        return self._with(labels=self.labels.where(of_texts, torch.nan))


class CollateSentences(Collate):
    """Pads to the longest text of the batch."""

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Pad the texts and give them as a batch."""
        return {**super().__call__(rows), **rows["more"]}


def begins_of(rows: Sequence[Sequence[Any]]) -> np.ndarray:
    """The number of the first entry of each row, and that of all, shape (rows + 1,)."""
    return np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
