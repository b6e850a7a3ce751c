"""Tokenised rows, and how some of them become a batch."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ..draw import Draw, keyed, seed_of
from ..labelled_rows import LabelledRows, UNLABELLED
from ..ragged import Ragged

Augmentation = Callable[[torch.Tensor, torch.Generator], Any]


class Rows(LabelledRows):
    """Tokenised rows; indexed by a list of row numbers, it gives what is to be collated.

    Args:
        student: its `input_ids` and what comes with them, of all rows.
        teacher: the same by the teacher's tokenizer, if it is another one.
        labels: of all rows, shape (rows, ...).
        numbers: which rows these are, shape (chosen,).
        augmentation: what a [`Draw`][] with a view does to the student's tokens, see
            [`TokenMasking`][]; `None` leaves them.
        seed: of the augmentation.

    Attributes:
        cut: which rows were cut at their longest length, by either tokenizer; `None` if unknown.
    """

    cut: np.ndarray | None = None

    def __init__(
        self,
        student: dict[str, Ragged],
        teacher: dict[str, Ragged] | None,
        labels: torch.Tensor,
        numbers: torch.Tensor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ):
        super().__init__(labels, numbers, augmentation, seed)
        self.student, self.teacher = student, teacher

    @property
    def lengths(self) -> np.ndarray:
        """Of every row in tokens, by the tokenizer that makes more of it, shape (chosen,)."""
        sides = [self.student] if self.teacher is None else [self.student, self.teacher]
        longest = np.maximum.reduce([side["input_ids"].lengths for side in sides])
        return longest[self.numbers.numpy()]

    def __getitem__(self, chosen: list[int]) -> dict[str, Any]:
        asked = np.asarray(chosen, dtype=np.int64)
        numbers = self.numbers.numpy()[np.where(asked < 0, -asked - 1, asked)]
        rows = torch.from_numpy(numbers)
        student = {k: v.take(numbers) for k, v in self.student.items()}
        view = chosen.view if isinstance(chosen, Draw) else None
        if self.augmentation is not None and view is not None:
            student["input_ids"] = self._augmented(student["input_ids"], numbers, view)
        return {
            "student": student,
            "teacher": self.teacher and {k: v.take(numbers) for k, v in self.teacher.items()},
            "labels": self.labels_at(rows),
            "row": rows.masked_fill(torch.from_numpy(asked < 0), -1),
        }

    def labels_at(self, rows: torch.Tensor) -> Any:
        """The labels of rows by number; `None` if they are among the columns of the tokens."""
        return self.labels[rows]

    def _augmented(self, tokens: Ragged, numbers: np.ndarray, view: int) -> Ragged:
        assert self.augmentation is not None
        seed = seed_of(self.augmentation, self.seed)
        made = []
        for number, row in zip(numbers.tolist(), tokens, strict=True):
            generator = keyed(seed, number, view)
            changed = self.augmentation(torch.from_numpy(row.astype(np.int64)), generator)
            found = np.asarray(changed)
            if found.shape != row.shape:
                raise ValueError(
                    f"`augmentation` ({type(self.augmentation).__name__}) was given {len(row)} "
                    f"tokens and returned shape {found.shape}; it must return as many tokens."
                )
            made.append(found)
        return Ragged.of(made)

    def contents(self) -> Iterator[bytes]:
        """All tokens and labels, in one form whatever types they are held in."""
        yield from self.student["input_ids"].contents()
        yield self.labels.numpy().tobytes()


class Collate:
    """Pads to the longest row of the batch; a class, so that worker processes can take it."""

    def __init__(self, tokenizer: Any, teacher_tokenizer: Any):
        self.tokenizer, self.teacher_tokenizer = tokenizer, teacher_tokenizer

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Pad the rows and give them as a batch."""
        batch: dict[str, Any] = dict(_pad(rows["student"], self.tokenizer))
        if rows["labels"] is not None:
            batch["labels"] = rows["labels"]
        batch["row"] = rows["row"]
        if rows["teacher"] is not None:
            batch["teacher"] = _pad(rows["teacher"], self.teacher_tokenizer)
        return batch


def _pad(columns: dict[str, Ragged], tokenizer: Any) -> dict[str, torch.Tensor]:
    fill = {
        "input_ids": tokenizer.pad_token_id,
        "token_type_ids": tokenizer.pad_token_type_id,
        "labels": UNLABELLED,
    }
    left = tokenizer.padding_side == "left"
    return {name: rows.padded(fill.get(name, 0), left) for name, rows in columns.items()}
