"""Tokenised rows, and how some of them become a batch."""

import copy
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..draw import Draw
from ..ragged import Ragged

Augmentation = Callable[[torch.Tensor, torch.Generator], Any]

UNLABELLED = -100


class Rows(Dataset):
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
        self.student, self.teacher = student, teacher
        self.labels, self.numbers = labels, numbers
        self.augmentation, self.seed = augmentation, seed

    def __len__(self) -> int:
        return len(self.numbers)

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
        # Keyed by what the row is, and not by who draws it when.
        generator = torch.Generator()
        seed = getattr(self.augmentation, "seed", self.seed)
        made = []
        for number, row in zip(numbers.tolist(), tokens, strict=True):
            key = hashlib.blake2b(f"{seed} {number} {view}".encode(), digest_size=8).digest()
            generator.manual_seed(int.from_bytes(key) >> 1)
            changed = self.augmentation(torch.from_numpy(row.astype(np.int64)), generator)
            found = np.asarray(changed)
            if found.shape != row.shape:
                raise ValueError(
                    f"`augmentation` ({type(self.augmentation).__name__}) was given {len(row)} "
                    f"tokens and returned shape {found.shape}; it must return as many tokens."
                )
            made.append(found)
        return Ragged.of(made)

    @property
    def has_label(self) -> torch.Tensor:
        """Which rows have a label, shape (rows,)."""
        labels = self.labels[self.numbers]
        if labels.dim() == 2:
            return (labels != UNLABELLED).all(dim=1)
        return ~labels.isnan() if labels.is_floating_point() else labels != UNLABELLED

    def contents(self) -> Iterator[bytes]:
        """All tokens and labels, in one form whatever types they are held in."""
        yield from self.student["input_ids"].contents()
        yield self.labels.numpy().tobytes()

    def labelled(self) -> "Rows":
        """Those rows that have a label."""
        return self._with(numbers=self.numbers[self.has_label])

    def augmented_by(self, augmentation: Augmentation | None, seed: int) -> "Rows":
        """The same rows, which change with the view under which they are drawn."""
        return self._with(augmentation=augmentation, seed=seed)

    def _with(self, **changes: Any) -> "Rows":
        changed = copy.copy(self)
        for name, value in changes.items():
            setattr(changed, name, value)
        return changed

    def keeping_labels(self, count: int, seed: int) -> "Rows":
        """All rows, but only `count` of them labelled, in equal shares of the classes."""
        generator = torch.Generator().manual_seed(seed)
        candidates = self.numbers[self.has_label]
        candidates = candidates[torch.randperm(len(candidates), generator=generator)]
        if self.labels.dim() == 1 and not self.labels.is_floating_point():
            seen: dict[int, int] = {}
            turn = []
            for label in self.labels[candidates].tolist():
                seen[label] = seen.get(label, 0) + 1
                turn.append(seen[label])
            # First of each class, second of each class, ...
            candidates = candidates[torch.tensor(turn).argsort(stable=True)]
        labels = self.labels.clone()
        hidden = torch.ones(len(labels), dtype=torch.bool)
        hidden[candidates[:count]] = False
        labels[hidden] = float("nan") if labels.dim() == 1 and labels.is_floating_point() else -100
        return self._with(labels=labels)


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
