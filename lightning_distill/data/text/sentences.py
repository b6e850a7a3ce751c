"""Texts alone, in pairs and in lists of candidates: what all data of sentences share."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
import torch

from ...tasks import Embedding, Task, task_of
from ..bad_rows import BadRows
from ..tokens import tokenise
from .rows import Rows
from .sentence_rows import begins_of, CollateSentences, SentenceRows
from .text import TextDataModule

# The columns that `load` gives.
TEXTS, SCORE, VECTORS, SCORES = "texts", "score", "vectors", "scores"
RELEVANCE = "relevance"


class Sentences(TextDataModule):
    """Rows of texts for models that compare two of them; subclasses write `load`.

    `load` gives splits with the columns `texts` (a list for each row: the first text, and the
    candidates that are compared with it), `score` (of the pair, or `None`), and, where the data
    have them, `vectors` (the teacher's, one for each text), `scores` (the teacher's, one for
    each candidate) and `relevance` (a label for each candidate, `None` without).

    Every text is a row of the batch, whose entries are `input_ids`, `attention_mask` and what else
    the tokenizer gives, `place` (of the text in its row, 0 for the first), `labels` (the score of a
    candidate, NaN without and for the first; of several candidates 1 for the first of them and 0
    for the others), `row` (of the data, the same for all of its texts), and `vectors` and `scores`
    (NaN for the first text). If the teacher has another tokenizer, `teacher` holds its tensors.

    A task that reads pairs, as [`Ranking`][lightning_distill.tasks.Ranking] does, is given each
    candidate together with the first text as one text, and no row for the first alone: `place`
    begins with 1. If only the teacher reads pairs, `teacher` holds them, and in the place of each
    first text this alone.

    Args:
        largest_score: what stands for equal texts: labels are divided by it, since cosines go to 1.
        teacher_pairs: whether the teacher reads pairs, as a cross-encoder does; by default if the
            task does.
        task: [`Embedding`][lightning_distill.tasks.Embedding],
            [`Ranking`][lightning_distill.tasks.Ranking], or one of your own.
        skip_bad_rows: leave out rows that cannot be used, and count them; else the first is an
            error.
        options: those of [`TextDataModule`][].

    Raises:
        ValueError: for data and options that cannot be trained on; each says what to do.
    """

    label_of: ClassVar[str] = "candidates"
    label_option: ClassVar[str] = "score"

    def __init__(
        self,
        largest_score: float = 1.0,
        task: str | Task = Embedding.name,
        skip_bad_rows: bool = False,
        teacher_pairs: bool | None = None,
        **options: Any,
    ):
        super().__init__(text=TEXTS, label=SCORE, task=task, **options)
        self.skip_bad_rows, self.bad_rows = skip_bad_rows, BadRows(skip_bad_rows)
        if teacher_pairs not in (None, True, False):
            raise ValueError(f"`teacher_pairs` must be true, false or null, got {teacher_pairs!r}.")
        self.pairs = task_of(self).reads_pairs
        self.teacher_pairs = self.pairs if teacher_pairs is None else teacher_pairs
        if self.pairs and not self.teacher_pairs:
            raise ValueError(
                f"data.task={task_of(self).name} makes a student that reads pairs, and "
                "`teacher_pairs` is false: a teacher that reads texts one by one gives no scores "
                "of pairs. Leave data.teacher_pairs=null, or name a column of scores (data.scores)."
            )
        self.largest_score = largest_score
        if not isinstance(largest_score, int | float) or not 0 < largest_score < math.inf:
            raise ValueError(f"`largest_score` must be a positive number, got {largest_score!r}.")
        if self.augmentation is not None:
            raise ValueError(
                "`augmentation` changes tokens of one text for each row, and rows of sentences may "
                "have several: leave data.augmentation=null."
            )
        super()._check_options()

    def collate(self) -> CollateSentences:
        """What pads the texts of a batch."""
        # Pairs for the teacher alone may be of the student's tokens.
        return CollateSentences(self.tokenizer, self.teacher_tokenizer or self.tokenizer)

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        # What was cached of texts before there were pairs stays good.
        pairs = {"student_pairs": self.pairs, "teacher_pairs": True} if self.teacher_pairs else {}
        return {**super().preprocessing(), "text": "texts", **pairs}

    def _usable(self, name: str, split: datasets.Dataset) -> datasets.Dataset:
        """All of them: `load` has looked at every text."""
        return split

    def _texts(self, split: datasets.Dataset) -> list[list[str]]:
        return [[text for row in split[TEXTS] for text in row]]

    def _tokenise(self, split: datasets.Dataset, labels: torch.Tensor) -> Rows:
        begins = begins_of(split[TEXTS])
        own = self._read_by(self.tokenizer, split, self.pairs, alone=False)
        other = None
        if self.teacher_tokenizer is not None or self.teacher_pairs is not self.pairs:
            reader = self.teacher_tokenizer or self.tokenizer
            other = self._read_by(reader, split, self.teacher_pairs, alone=not self.pairs)
        more = {}
        if VECTORS in split.column_names:
            more[VECTORS] = torch.tensor([v for row in split[VECTORS] for v in row])
        if SCORES in split.column_names:
            # The first text has none.
            more[SCORES] = torch.tensor([s for row in split[SCORES] for s in (math.nan, *row)])
        found = self._labels_of_texts(split, labels, begins)
        if self.pairs:
            there = torch.ones(len(found), dtype=torch.bool)
            there[torch.from_numpy(begins[:-1])] = False
            found, more = found[there], {name: column[there] for name, column in more.items()}
            begins = begins - np.arange(len(begins))
        rows = SentenceRows(own, other, found, begins, more, first_place=int(self.pairs))
        cut = own.cut if other is None else own.cut | other.cut
        rows.cut = np.logical_or.reduceat(cut, begins[:-1])
        return rows

    def _check_labels(self) -> None:
        super()._check_labels()
        if self.pairs:
            rows = self.splits["train"]
            task_of(self).check_candidates(int(np.diff(rows.begins).max()))

    def _read_by(self, tokenizer: Any, split: datasets.Dataset, pairs: bool, alone: bool) -> Any:
        """Tokens of each text, or of each pair of the first text of a row and another.

        Args:
            tokenizer: a model's.
            split: the data.
            pairs: whether the model reads pairs.
            alone: whether each first text is read too, with nothing behind it.
        """
        if not pairs:
            return tokenise(self._texts(split), tokenizer, self.max_length)
        if any(len(row) < 2 for row in split[TEXTS]):
            raise ValueError(
                "Pairs need a text and one or more that it is compared with, and a row has one "
                "text alone: name the column of the others, as in data.text_pair=positive."
            )
        first = [row[0] for row in split[TEXTS] for _ in row[0 if alone else 1 :]]
        others = [["", *row[1:]] if alone else row[1:] for row in split[TEXTS]]
        second = [text for row in others for text in row]
        return tokenise([first, second], tokenizer, self.max_length)

    def _has_labels_elsewhere(self, splits: Mapping[str, datasets.Dataset]) -> bool:
        """Whether rows have several candidates, of which the first belongs to the text."""
        return any(len(row) > 2 for split in splits.values() for row in split[TEXTS])

    def _labels_of_texts(
        self, split: datasets.Dataset, scores: torch.Tensor, begins: np.ndarray
    ) -> torch.Tensor:
        """The label of every text, NaN without, from the columns `relevance` or `score`."""
        if RELEVANCE in split.column_names:
            given = [(None, *row) for row in split[RELEVANCE]]
            numbers = [math.nan if v is None else v for row in given for v in row]
            return torch.tensor(numbers) / self.largest_score
        found = torch.full((int(begins[-1]),), math.nan)
        firsts, sizes = torch.from_numpy(begins[:-1]), torch.from_numpy(np.diff(begins))
        several = sizes > 2
        for i, size in zip(firsts[several].tolist(), sizes[several].tolist(), strict=True):
            found[i + 1] = 1.0
            found[i + 2 : i + size] = 0.0
        pairs = sizes == 2
        found[firsts[pairs] + 1] = scores[pairs].float() / self.largest_score
        return found


def number_or_nan(value: Any) -> float | None:
    """A number that a file holds as one or as text; NaN where it is empty, `None` if it is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isinf(found) else found


def strings(value: Any) -> Sequence[Any]:
    """A list of texts as it is, and one text as a list."""
    return value if isinstance(value, list | tuple) else [value]
