"""Questions about texts that hold the answer: what files and the hub share."""

from collections.abc import Mapping
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ...tasks import QuestionAnswering, References, Task
from ..truncation import counts_of_cut
from .question_rows import joined, QuestionCollate, QuestionRows
from .read_questions import parsed, Unusable
from .rows import UNLABELLED
from .text import TextDataModule
from .windows import ends_in_window, windows_of


class Questions(TextDataModule):
    """Questions, contexts and answers, for [`QuestionAnswering`][]; subclasses write `load`.

    A row of a batch is a window: a question and a part of its context. Windows of one context
    overlap, so that an answer at the border of one lies within another. `labels` (rows, 2) are the
    first and the last token of the answer; in a window that does not hold all of it, twice the
    token that stands for no answer (`[CLS]`, or the first). `answer_mask` is true for this one and
    for the tokens of the context, `window` is the number of the window among those of all splits.

    Validation rows that are cut from the training rows are those of whole contexts.

    Args:
        question: name of the question.
        context: name of the text that holds the answer.
        answers: name of the answers: a list of entries with `text` and `answer_start`, or an entry
            with lists of both; in csv and tsv as json. A row may lack them.
        answer_text: name of the text of a single answer, in rows without `answers`.
        answer_start: name of the letter of the context at which it begins, counted from 0.
        id: name of the id of a question, for errors.
        stride: how many tokens of a context two windows share.
        no_answer: whether questions may have none, as in version 2 of SQuAD: those with an empty
            list of answers. `None` if one says `is_impossible`. Without, an empty list is a
            question without a label.
        null_threshold: how much better than the best answer no answer must score, in logits, to be
            taken.
        max_answer_length: of an answer, in tokens.
        task: [`QuestionAnswering`][], or one of your own.
        options: those of [`TextDataModule`][]. `labelled_rows` keeps the answers of so many
            training questions.

    Attributes:
        references: what metrics compare answers with, after `setup`.

    Raises:
        ValueError: for an answer that is not in its context and a question that is empty, naming
            file and id, unless such rows are skipped; for a teacher with a tokenizer of its own.
    """

    whole_numbers: ClassVar[Mapping[str, int]] = {
        **TextDataModule.whole_numbers,
        "max_length": 8,
        "stride": 0,
        "max_answer_length": 1,
    }
    one_tokenizer: ClassVar[bool] = True
    label_of: ClassVar[str] = "answer"
    label_option: ClassVar[str] = "answers"
    together: ClassVar[str | None] = "context"

    def __init__(
        self,
        question: str = "question",
        context: str = "context",
        answers: str = "answers",
        answer_text: str = "text",
        answer_start: str = "answer_start",
        id: str = "id",
        stride: int = 128,
        no_answer: bool | None = None,
        null_threshold: float = 0.0,
        max_answer_length: int = 30,
        max_length: int = 384,
        task: str | Task = QuestionAnswering.name,
        **options: Any,
    ):
        self.names = {"question": question, "context": context, "answers": answers, "id": id}
        self.names |= {"answer_text": answer_text, "answer_start": answer_start}
        self.stride, self.max_answer_length = stride, max_answer_length
        self.no_answer, self.null_threshold = no_answer, float(null_threshold)
        self.references: References | None = None
        super().__init__(
            text="question",
            text_pair="context",
            label=answers,
            task=task,
            max_length=max_length,
            **options,
        )

    def setup(self, stage: str | None = None) -> None:
        """Load, check and tokenise; a second call does nothing."""
        if self.splits:
            return
        super().setup(stage)
        if self.teacher_tokenizer is not None:
            raise ValueError(
                "Student and teacher are compared position by position, and their tokenizers make "
                "other tokens of a text. Give both the same one: a student made of the teacher "
                "(student=from_teacher), or one that is trained with data.tokenizer=TEACHER."
            )
        splits: list[QuestionRows] = list(self.splits.values())
        firsts = np.cumsum([0, *(len(rows) for rows in splits)])
        before = np.cumsum([0, *(len(given) for given in self._given)])
        for rows, start in zip(splits, firsts, strict=False):
            rows.first_window = int(start)
        windows = [rows.windows for rows in splits]
        numbers = [w.questions + n for w, n in zip(windows, before, strict=False)]
        self.references = References(
            [context for given in self._given for context in given["context"]],
            [texts for given in self._given for texts in given["texts"]],
            np.concatenate(numbers).tolist(),
            np.concatenate([w.nulls for w in windows]).tolist(),
            joined([w.starts for w in windows]),
            joined([w.ends for w in windows]),
            bool(self.no_answer),
            self.null_threshold,
            self.max_answer_length,
        )

    def collate(self) -> QuestionCollate:
        """What pads the rows of a batch."""
        return QuestionCollate(self.tokenizer, self.teacher_tokenizer)

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        return {**super().preprocessing(), "stride": self.stride}

    def counts(self) -> dict[str, int]:
        """How many windows and questions each split has, and how many keep their answers."""
        splits: dict[str, QuestionRows] = self.splits
        labelled = splits["train"].labelled_questions
        kept = labelled if self.labelled_rows is None else min(labelled, self.labelled_rows)
        found = {f"{name} questions": len(np.unique(r.questions)) for name, r in splits.items()}
        found |= {f"{name} windows": len(rows) for name, rows in splits.items()}
        cut = counts_of_cut(self._cut())
        return {**found, "labelled train rows": kept, **cut, **self.bad_rows.counts()}

    # Reading.

    def _usable(self, name: str, split: datasets.Dataset) -> datasets.Dataset:
        """The questions that can be read; a missing column is an error."""
        for option in ("question", "context"):
            if self.names[option] not in split.column_names:
                raise ValueError(
                    f"The {name} data has no {self.names[option]!r} (data.{option}); it has "
                    f"{', '.join(split.column_names)}. Name it, as in data.{option}=NAME."
                )
        found = []
        for i, row in enumerate(split):
            where = row.get("file") or f"the {name} data"
            try:
                found.append(vars(parsed(row, self.names, i)))
            except Unusable as error:
                known = row.get(self.names["id"])
                which = f"Row {i}" if known is None else f"Question {known}"
                self.bad_rows.add(name, f"{which} of {where} {error}")
        columns = ("id", "question", "context", "texts", "starts", "given", "impossible")
        return datasets.Dataset.from_dict({n: [row[n] for row in found] for n in columns})

    def _read_labels(
        self, splits: Mapping[str, datasets.Dataset], validation_is_cut: bool
    ) -> dict[str, Any]:
        """Nothing of each row: answers are found among the tokens. A head gives two numbers."""
        self._given = list(splits.values())
        impossible = sum(sum(given["impossible"]) for given in self._given)
        if impossible and self.no_answer is False:
            raise ValueError(
                f"{impossible} questions say is_impossible, and data.no_answer=false says that "
                "each has an answer: set data.no_answer=true, or take them out."
            )
        self.no_answer = bool(impossible) if self.no_answer is None else self.no_answer
        self.num_labels = 2
        return {name: None for name in splits}

    def _tokenise(self, split: datasets.Dataset, labels: Any) -> QuestionRows:
        assert isinstance(self.tokenizer, PreTrainedTokenizerBase)
        windows = windows_of(
            split["question"], split["context"], self.tokenizer, self.max_length, self.stride
        )
        asked = list(zip(split["texts"], split["starts"], split["given"], strict=True))
        found = np.full((len(windows.nulls), 2), UNLABELLED, dtype=np.int64)
        for i, question in enumerate(windows.questions.tolist()):
            texts, starts, given = asked[question]
            null = int(windows.nulls[i])
            if texts:
                at, end = starts[0], starts[0] + len(texts[0])
                found[i] = ends_in_window(windows.starts[i], windows.ends[i], null, at, end)
            elif given and self.no_answer:
                found[i] = null
        return QuestionRows(windows, torch.from_numpy(found))

    def _check_labels(self) -> None:
        wanted, self.labelled_rows = self.labelled_rows, None
        try:
            # What follows counts windows.
            super()._check_labels()
        finally:
            self.labelled_rows = wanted
        available = self.splits["train"].labelled_questions
        if wanted is not None and wanted > available:
            raise ValueError(
                f"`labelled_rows` is {wanted}, but only {available} training questions have an "
                "answer."
            )
