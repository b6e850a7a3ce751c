"""Texts alone, in pairs and in lists of candidates: what all data of sentences share."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
import torch

from ...tasks import Embedding, Task
from ..bad_rows import BadRows
from ..tokens import tokenise
from .rows import Rows
from .sentence_rows import begins_of, CollateSentences, SentenceRows
from .text import TextDataModule

# The columns that `load` gives.
TEXTS, SCORE, VECTORS, SCORES = "texts", "score", "vectors", "scores"


class Sentences(TextDataModule):
    """Rows of texts for [`Embedding`][lightning_distill.tasks.Embedding]; subclasses write `load`.

    `load` gives splits with the columns `texts` (a list for each row: the first text, and the
    candidates that are compared with it), `score` (of the pair, or `None`), and, where the data
    have them, `vectors` (the teacher's, one for each text) and `scores` (the teacher's, one for
    each candidate).

    Every text is a row of the batch, whose entries are `input_ids`, `attention_mask` and what else
    the tokenizer gives, `place` (of the text in its row, 0 for the first), `labels` (the score of a
    candidate, NaN without and for the first; of several candidates 1 for the first of them and 0
    for the others), `row` (of the data, the same for all of its texts), and `vectors` and `scores`
    (NaN for the first text). If the teacher has another tokenizer, `teacher` holds its tensors.

    Args:
        largest_score: what stands for equal texts: scores are divided by it, since cosines go to 1.
        task: [`Embedding`][lightning_distill.tasks.Embedding], or one of your own.
        skip_bad_rows: leave out rows that cannot be used, and count them; else the first is an
            error.
        options: those of [`TextDataModule`][].

    Raises:
        ValueError: for data and options that cannot be trained on; each says what to do.
    """

    label_option: ClassVar[str] = "score"

    def __init__(
        self,
        largest_score: float = 1.0,
        task: str | Task = Embedding.name,
        skip_bad_rows: bool = False,
        **options: Any,
    ):
        super().__init__(text=TEXTS, label=SCORE, task=task, **options)
        self.skip_bad_rows, self.bad_rows = skip_bad_rows, BadRows(skip_bad_rows)
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
        return CollateSentences(self.tokenizer, self.teacher_tokenizer)

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        return {**super().preprocessing(), "text": "texts"}

    def _usable(self, name: str, split: datasets.Dataset) -> datasets.Dataset:
        """All of them: `load` has looked at every text."""
        return split

    def _texts(self, split: datasets.Dataset) -> list[list[str]]:
        return [[text for row in split[TEXTS] for text in row]]

    def _tokenise(self, split: datasets.Dataset, labels: torch.Tensor) -> Rows:
        texts = self._texts(split)
        own = tokenise(texts, self.tokenizer, self.max_length)
        other = None
        if self.teacher_tokenizer is not None:
            other = tokenise(texts, self.teacher_tokenizer, self.max_length)
        begins = begins_of(split[TEXTS])
        more = {}
        if VECTORS in split.column_names:
            more[VECTORS] = torch.tensor([v for row in split[VECTORS] for v in row])
        if SCORES in split.column_names:
            # The first text has none.
            more[SCORES] = torch.tensor([s for row in split[SCORES] for s in (math.nan, *row)])
        rows = SentenceRows(own, other, self._labels_of_texts(labels, begins), begins, more)
        cut = own.cut if other is None else own.cut | other.cut
        rows.cut = np.logical_or.reduceat(cut, begins[:-1])
        return rows

    def _labels_of_texts(self, scores: torch.Tensor, begins: np.ndarray) -> torch.Tensor:
        """The label of every text, NaN without, from the score of each row."""
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
