"""Tokenised text with labels: what all text data modules share."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ...tasks import Task, task_named, task_of, task_of_labels, TASKS
from ..all_splits import all_splits
from ..draw import known_by
from ..length_grouped import LengthGroupedBatches
from ..load_tokenizer import load_tokenizer
from ..rows_module import RowsModule, Tokenizer
from ..tokens import tokenise
from ..truncation import counts_of_cut, say_cut
from .read_labels import class_label, LabelReader
from .rows import Augmentation, Collate, Rows
from .usable_texts import usable_texts
from .word_pieces import train_word_pieces

log = logging.getLogger("lightning_distill")


# What reads tasks of other kinds than a data module does.
READ_BY = {
    "text": "data=text_files or hub",
    "words": "data=token_files or hub_tokens",
    "answer": "data=question_files or hub_questions",
    "candidates": "data=embedding_files",
    "tokens": "data=text_corpus, chat_files, masked_corpus or pair_files",
}


class TextDataModule(RowsModule):
    """Rows of one text, or a pair, and a label; subclasses write `load`.

    A batch is a dict of tensors `input_ids` and `attention_mask` (rows, tokens), others that the
    tokenizer gives, `labels`, and `row`, the row's number in its split (-1 for a repeat that only
    evens out the ranks). If the teacher has another tokenizer, `teacher` holds its tensors.

    Args:
        text: column of the text.
        text_pair: column of a second text, for tasks on pairs.
        label: column of the label; may be absent or empty where rows are unlabelled. `None` if no
            row has one: then a student learns of a teacher alone, and agreement is measured.
        task: `classification` (int64 labels, -100 without), `multi_label` (a list of labels
            per row), `regression` (numbers, NaN without), or a
            [`Task`][lightning_distill.tasks.Task] of one's own. By default the labels say it: lists
            are several labels, numbers with a fraction a regression, and all else is classes.
        label_names: all labels in order; by default those of the training rows, sorted.
        tokenizer: one, or where to load it; by default a WordPiece is trained on the texts.
        teacher_tokenizer: one, or where to load it; the same by default.
        vocab_size: of a tokenizer that is trained here.
        max_length: longer rows are cut, in tokens.
        batch_size: rows per step and process.
        tokens_per_batch: makes steps of at most so many tokens per process, padding included, and
            of as many rows as that is, in the place of `batch_size`; see
            [`LengthGroupedBatches`][]. That is another training than one with equal steps.
        eval_batch_size: rows per batch in validation and test.
        length_bucketing: batch rows of similar length.
        labelled_rows: keep the labels of so many training rows, chosen by `seed` in equal shares
            of the classes; the others are unlabelled. All by default.
        drop_unlabelled: leave unlabelled training rows out.
        validation_fraction: cut from the training rows if there is no validation split.
        augmentation: changes the training rows, such as [`TokenMasking`][]; what it does to a row
            in an epoch depends on the seed, the row and the view alone.
        views: epoch e uses view e modulo `views`, so that there are only so many of every row; by
            default each epoch has a view of its own.
        num_labels: how many classes there are, as a check; it says that as many are meant where
            nearly every row has another label.
        skip_bad_rows: leave out rows that cannot be used, and count them; else the first is an
            error.
        num_workers: processes that collate ahead of the training; by default two beside a GPU, into
            pinned memory, and none on a CPU, whose cores they would take from it.
        seed: for choosing rows and their order.

    Raises:
        ValueError: for data and options that cannot be trained on; each says what to do.
    """

    whole_numbers: ClassVar[Mapping[str, int]] = {
        **RowsModule.whole_numbers,
        "max_length": 3,
        "vocab_size": 50,
        "labelled_rows": 1,
        "num_labels": 1,
        "tokens_per_batch": 1,
        "views": 1,
    }
    optional: ClassVar[frozenset[str]] = RowsModule.optional | {
        "labelled_rows",
        "num_labels",
        "tokens_per_batch",
        "views",
    }
    flags: ClassVar[tuple[str, ...]] = (*RowsModule.flags, "drop_unlabelled")
    replaceable: ClassVar[frozenset[str]] = RowsModule.replaceable | {
        "labelled_rows",
        "drop_unlabelled",
        "augmentation",
        "tokens_per_batch",
        "views",
    }

    # What has a label, see `Task`.
    label_of: ClassVar[str] = "text"
    # Which option names the column of labels.
    label_option: ClassVar[str] = "label"
    lost_with_cut: ClassVar[str] = ""
    # The column of which rows with the same value are cut for validation together.
    together: ClassVar[str | None] = None

    def __init__(
        self,
        text: str = "text",
        text_pair: str | None = None,
        label: str | None = "label",
        task: str | Task | None = None,
        label_names: Sequence[str] | None = None,
        tokenizer: Tokenizer = None,
        teacher_tokenizer: Tokenizer = None,
        vocab_size: int = 4000,
        max_length: int = 128,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        length_bucketing: bool = True,
        labelled_rows: int | None = None,
        drop_unlabelled: bool = False,
        validation_fraction: float = 0.1,
        num_workers: int | None = None,
        seed: int = 0,
        tokens_per_batch: int | None = None,
        augmentation: Augmentation | None = None,
        views: int | None = None,
        num_labels: int | None = None,
        skip_bad_rows: bool = False,
    ):
        super().__init__(
            tokenizer,
            teacher_tokenizer,
            max_length,
            batch_size,
            eval_batch_size,
            length_bucketing,
            validation_fraction,
            num_workers,
            seed,
            skip_bad_rows,
        )
        self.text, self.text_pair, self.label, self.task = text, text_pair, label, task
        if isinstance(label_names, str):
            raise ValueError(
                "`label_names` must be a list of all labels, as in [bad,good], got "
                f"{label_names!r}."
            )
        self.label_names = None if label_names is None else [str(n) for n in label_names]
        self.vocab_size, self.num_labels = vocab_size, num_labels
        self.labelled_rows, self.drop_unlabelled = labelled_rows, drop_unlabelled
        self.tokens_per_batch, self.augmentation, self.views = tokens_per_batch, augmentation, views
        self._check_options()

    def replace(self, **changes: Any) -> Any:
        """The same rows under other options, such as `drop_unlabelled=True`; nothing is reread."""
        changed = super().replace(**changes)
        if changed.splits:
            changed._check_labels()
            changed._check_augmentation()
        return changed

    def setup(self, stage: str | None = None) -> None:
        """Load, check and tokenise; a second call does nothing."""
        if self.splits:
            return
        given = self.load()
        for name, split in given.items():
            given[name] = self._usable(name, split)
        self.bad_rows.say({name: len(split) for name, split in given.items()})
        if self.task is None:
            self.task = self._task_of_labels(given["train"]) if "train" in given else None
        splits = all_splits(
            given, self.validation_fraction, self.seed, type(self).__name__, self.together
        )
        labels = self._read_labels(splits, validation_is_cut="validation" not in given)
        self.tokenizer = self._build_tokenizer(splits["train"])
        if self.teacher_tokenizer is not None:
            self.teacher_tokenizer = load_tokenizer(self.teacher_tokenizer)
            if self.teacher_tokenizer.get_vocab() == self.tokenizer.get_vocab():
                self.teacher_tokenizer = None
        for name, split in splits.items():
            self.splits[name] = self._tokenise(split, labels[name])
        # The rows of a batch are numbered below it.
        self.num_rows = len(self.splits["train"])
        sizes = {name: len(rows) for name, rows in self.splits.items()}
        say_cut(self._cut(), sizes, self.max_length, more=self.lost_with_cut)
        self._check_labels()
        self._check_augmentation()

    def _read_labels(
        self, splits: Mapping[str, datasets.Dataset], validation_is_cut: bool
    ) -> dict[str, Any]:
        """The labels of each split; from here on it is known how many classes there are."""
        reader = LabelReader(
            self.label, task_of(self), self.label_names, self.num_labels, self.label_option
        )
        labels = reader.read(
            splits,
            unlabelled_training=self.labelled_rows is None and not self.drop_unlabelled,
            validation_is_cut=validation_is_cut,
            texts=[column for column in (self.text, self.text_pair) if column is not None],
            labels_elsewhere=self._has_labels_elsewhere(splits),
        )
        self.label_names, self.num_labels = reader.names, reader.count
        return labels

    def _has_labels_elsewhere(self, splits: Mapping[str, datasets.Dataset]) -> bool:
        """Whether rows have labels that are in no column."""
        return False

    def _task_of_labels(self, train: datasets.Dataset) -> str:
        """The task that the labels show; said where it is no classification."""
        named = class_label(train, self.label) is not None
        there = self.label in train.column_names and not named
        values = [value for value in train[self.label] if value is not None] if there else []
        task = task_of_labels(values).name
        if task != task_named(None).name:
            log.info("Task: %s, as labels such as %r show (data.task)", task, values[0])
        return task

    def training_rows(self) -> Rows:
        """The training rows as they are augmented, with those labels that are kept."""
        rows: Rows = self.splits["train"]
        if self.labelled_rows is not None:
            rows = rows.keeping_labels(self.labelled_rows, self.seed)
        return rows.augmented_by(self.augmentation, self.seed)

    def trained_rows(self) -> Any:
        """Numbers of the training rows that are not left out, shape (rows,); `None` if none is."""
        return self.training_rows().has_label.nonzero()[:, 0] if self.drop_unlabelled else None

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of the training rows, those without labels too unless dropped."""
        rows = self.training_rows()
        if self.drop_unlabelled:
            rows = rows.labelled()
        return self._loader(rows, self.training_sampler(rows.lengths))

    def training_sampler(self, lengths: np.ndarray) -> LengthGroupedBatches:
        """Which rows make a batch, and under which view they are augmented."""
        return LengthGroupedBatches(
            lengths,
            self.batch_size,
            self.seed,
            grouped=self.length_bucketing,
            tokens_per_batch=self.tokens_per_batch,
            views=self.views,
        )

    def collate(self) -> Collate:
        """What pads the rows of a batch."""
        return Collate(self.tokenizer, self.teacher_tokenizer)

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        return {
            **super().preprocessing(),
            "text": self.text,
            "text_pair": self.text_pair,
            **known_by(self.augmentation, self.seed),
            "views": self.views,
        }

    def counts(self) -> dict[str, int]:
        """How many rows each split has, and how many training rows keep their label."""
        train = self.splits["train"]
        labelled = int(train.has_label.sum())
        if self.labelled_rows is not None:
            labelled = min(labelled, self.labelled_rows)
        return {
            "train rows": len(train),
            "labelled train rows": labelled,
            "validation rows": len(self.splits["validation"]),
            "test rows": len(self.splits["test"]),
            **counts_of_cut(self._cut()),
            **self.bad_rows.counts(),
        }

    @property
    def unlabelled(self) -> bool:
        """Whether no row of any split has a label."""
        return not any(bool(rows.has_label.any()) for rows in self.splits.values())

    def _cut(self) -> dict[str, int]:
        """How many rows of each split were cut."""
        return {n: 0 if r.cut is None else int(r.cut.sum()) for n, r in self.splits.items()}

    # Checks and reading.

    def _check_options(self) -> None:
        task = task_of(self)
        if task.label_of != self.label_of:
            there = [t.name for t in TASKS if t.label_of == self.label_of]
            raise ValueError(
                f"`task` of {type(self).__name__} must be {' or '.join(there)}, or one of your own "
                f'with label_of = "{self.label_of}", got {task.name}, which is read by '
                f"{READ_BY.get(task.label_of, 'a data module of your own')}."
            )
        super()._check_options()
        if self.augmentation is not None and not callable(self.augmentation):
            raise ValueError(
                "`augmentation` must be a callable (tokens, generator) -> tokens, as in "
                "data.augmentation._target_=lightning_distill.data.TokenMasking, got "
                f"{self.augmentation!r}."
            )
        if self.views is not None and self.augmentation is None:
            raise ValueError(
                f"`views` is {self.views}, but there is no `augmentation`, so a row has one view."
            )
        if self.label_names and len(set(self.label_names)) < len(self.label_names):
            raise ValueError(f"`label_names` names a class twice: {', '.join(self.label_names)}.")

    def _check_labels(self) -> None:
        for name in ("validation", "test"):
            if not self.unlabelled and not self.splits[name].has_label.any():
                raise ValueError(
                    f"No row of the {name} data has a label, so nothing can be measured on it."
                )
        available = int(self.splits["train"].has_label.sum())
        if self.labelled_rows is not None and self.labelled_rows > available:
            raise ValueError(
                f"`labelled_rows` is {self.labelled_rows}, but only {available} training rows "
                "have a label."
            )
        one_each = task_of(self).has_softmax and self.label_of == "text"
        classes = self.num_labels if one_each else None
        if self.labelled_rows is not None and self.labelled_rows < (classes or 0):
            log.warning(
                "`labelled_rows` is %d: not every one of the %d classes has a labelled row",
                self.labelled_rows,
                classes,
            )
        if self.drop_unlabelled and available == 0:
            raise ValueError("No training row has a label, and drop_unlabelled leaves them out.")

    def _check_augmentation(self) -> None:
        if self.augmentation is None:
            return
        if self.teacher_tokenizer is not None:
            raise ValueError(
                "`augmentation` changes tokens, and the teacher has another tokenizer than the "
                "student: only the student's text would change. Leave data.augmentation=null, or "
                "take models of one tokenizer."
            )
        use = getattr(self.augmentation, "use_tokenizer", None)
        if use is not None:
            use(self.tokenizer)

    # Tokens.

    def _build_tokenizer(self, train: datasets.Dataset) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            texts = [text for part in self._texts(train) for text in part]
            return train_word_pieces(texts, self.vocab_size, self.max_length)
        return load_tokenizer(self.tokenizer)

    def _usable(self, name: str, split: datasets.Dataset) -> datasets.Dataset:
        """The rows of a split that can be read; a missing column is an error."""
        return usable_texts(name, split, self.bad_rows, text=self.text, text_pair=self.text_pair)

    def _texts(self, split: datasets.Dataset) -> list[list[str]]:
        """The texts of a split, or both of each pair."""
        columns = (self.text, self.text_pair)
        return [list(split[column]) for column in columns if column is not None]

    def _tokenise(self, split: datasets.Dataset, labels: Any) -> Rows:
        texts = self._texts(split)
        own = tokenise(texts, self.tokenizer, self.max_length)
        other = None
        if self.teacher_tokenizer is not None:
            other = tokenise(texts, self.teacher_tokenizer, self.max_length)
        rows = Rows(own, other, labels, torch.arange(len(labels)))
        rows.cut = own.cut if other is None else own.cut | other.cut
        return rows
