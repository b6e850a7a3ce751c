"""Questions and the texts that answer them: what all data modules of them share."""

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import datasets
import numpy as np
import torch

from ...tasks import QuestionAnswering, Questions, Task, task_of
from ..all_splits import all_splits
from .question_rows import COLUMNS, places_of, QuestionRows, read_question, windows_of
from .rows import Collate
from .text import TextDataModule

log = logging.getLogger("lightning_distill")


class QuestionData(TextDataModule):
    """Questions, each with a text that holds the answer or does not; subclasses write `load`.

    A row of a batch is a question with a part of its text: `labels` (rows, 2) are the places of the
    tokens at which the answer begins and ends, 0 where this part does not hold it whole.
    `question` is the number of the question, and `begins` and `ends` say where in the text each
    token stands. Validation rows that are cut from the training data share no text with them.

    Args:
        question: column of the question.
        context: column of the text.
        answers: column of the answers, `{text: [..], answer_start: [..]}` or a list of `{text,
            answer_start}`; several are right, and the first is learnt. Empty where the text does
            not answer the question.
        answer: column of a single answer, where there is no column of answers.
        answer_start: column of where it starts in the text, in letters.
        stride: texts longer than a row are read in parts that overlap by so many tokens.
        max_question_length: longer questions are cut, in tokens.
        options: those of [`TextDataModule`][].

    Attributes:
        questions: of all splits, once they are read.

    Raises:
        ValueError: for an answer that does not stand where it is said to, naming its row; for a
            teacher with another tokenizer.
    """

    whole_numbers: ClassVar[Mapping[str, int]] = {
        **TextDataModule.whole_numbers,
        "stride": 0,
        "max_question_length": 1,
    }

    def __init__(
        self,
        question: str = "question",
        context: str = "context",
        answers: str = "answers",
        answer: str = "answer",
        answer_start: str = "answer_start",
        stride: int = 64,
        max_question_length: int = 64,
        max_length: int = 384,
        task: str | Task = QuestionAnswering.name,
        **options: Any,
    ):
        self.names = {
            "question": question,
            "context": context,
            "answers": answers,
            "answer": answer,
            "answer_start": answer_start,
        }
        self.stride, self.max_question_length = stride, max_question_length
        self.questions = Questions()
        super().__init__(text="question", text_pair="context", label="texts", task=task,
                         max_length=max_length, **options)  # fmt: skip

    def collate(self) -> "QuestionCollate":
        """What pads the rows of a batch."""
        return QuestionCollate(self.tokenizer, self.teacher_tokenizer)

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        shaping = {"stride": self.stride, "max_question_length": self.max_question_length}
        return {**super().preprocessing(), **shaping}

    def counts(self) -> dict[str, int]:
        """Windows and questions of each split, and of how many training windows labels are kept."""
        asked = {
            f"{name} questions": len(np.unique(rows.of_row)) for name, rows in self.splits.items()
        }
        return {**super().counts(), **asked}

    def _check_options(self) -> None:
        super()._check_options()
        if not isinstance(task_of(self), QuestionAnswering):
            raise ValueError(
                f"`task` of {type(self).__name__} must be question_answering, got "
                f"{task_of(self).name}. Texts with labels are read by data=text_files."
            )
        room = self.max_length - self.max_question_length - self.stride
        if room < 8:
            raise ValueError(
                f"`max_length` is {self.max_length} tokens, of which max_question_length="
                f"{self.max_question_length} and stride={self.stride} leave {room} for a new part "
                "of the text: it must be 8 at least. Raise data.max_length, or lower the others."
            )

    def _usable(self, name: str, split: datasets.Dataset) -> datasets.Dataset:
        """The questions of a split in one form."""
        if set(split.column_names) == {*COLUMNS}:
            return split
        lacking = [self.names[n] for n in ("question", "context")]
        lacking = [column for column in lacking if column not in split.column_names]
        if lacking:
            raise ValueError(
                f"The {name} data has no column {lacking[0]!r}; it has "
                f"{', '.join(split.column_names)}. Name it, as in data.question=COLUMN "
                "data.context=COLUMN."
            )
        found = [
            self._read(name, f"Row {i} of the {name} data", row) for i, row in enumerate(split)
        ]
        return in_one_form([row for row in found if row is not None])

    def _read(self, split: str, where: str, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """One question in one form; `None` where it cannot be used."""
        found = read_question(row, self.names)
        if isinstance(found, str):
            self.bad_rows.add(split, f"{where} {found}")
            return None
        return found

    def _all_splits(self, given: dict[str, datasets.Dataset]) -> dict[str, datasets.Dataset]:
        if "validation" in given or "train" not in given:
            return all_splits(given, self.validation_fraction, self.seed, type(self).__name__)
        train = given["train"]
        contexts = list(dict.fromkeys(train["context"]))
        order = torch.randperm(
            len(contexts), generator=torch.Generator().manual_seed(self.seed)
        ).tolist()
        held = {contexts[i] for i in order[: round(len(contexts) * self.validation_fraction)]}
        if held:
            log.info("no validation data: the questions of %d texts are held out for it", len(held))
            kept = [i for i, context in enumerate(train["context"]) if context not in held]
            cut = [i for i, context in enumerate(train["context"]) if context in held]
            given = {**given, "train": train.select(kept), "validation": train.select(cut)}
        return all_splits(given, self.validation_fraction, self.seed, type(self).__name__)

    def _read_labels(
        self, splits: dict[str, datasets.Dataset], validation_is_cut: bool
    ) -> dict[str, Any]:
        # The head has two numbers for each token.
        self.num_labels, self.label_names = 2, None
        return {name: list(split) for name, split in splits.items()}

    def _tokenise(self, split: datasets.Dataset, labels: Any) -> QuestionRows:
        if self.teacher_tokenizer is not None:
            raise ValueError(
                "Student and teacher point at tokens, and their tokenizers cut the text into "
                "other tokens. Give both the same one: a student made of the teacher "
                "(student=from_teacher), or one that is trained with data.tokenizer=TEACHER."
            )
        columns = windows_of(
            split["question"],
            split["context"],
            self.tokenizer,
            self.max_length,
            self.stride,
            self.max_question_length,
        )
        of_row = columns.pop("of_row").values
        places = places_of(columns["begins"], columns["ends"], of_row, labels)
        first = len(self.questions.contexts)
        self.questions.contexts += list(split["context"])
        self.questions.answers += [row["texts"] for row in labels]
        rows = QuestionRows(dict(columns), places, of_row, first)
        rows.cut = np.zeros(len(of_row), dtype=bool)
        return rows


def in_one_form(rows: list[dict[str, Any]]) -> datasets.Dataset:
    """Questions as [`QuestionData`][] holds them."""
    text = datasets.Value("string")
    features = datasets.Features(
        {
            "question": text,
            "context": text,
            "texts": datasets.List(text),
            "starts": datasets.List(datasets.Value("int64")),
        }
    )
    return datasets.Dataset.from_dict(
        {name: [row[name] for row in rows] for name in COLUMNS}, features=features
    )


class QuestionCollate(Collate):
    """Pads the windows of a batch, with the number of the question beside them."""

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Pad the rows and give them as a batch."""
        return {**super().__call__(rows), "question": rows["question"]}
