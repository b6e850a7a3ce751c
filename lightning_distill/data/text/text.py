"""Tokenised text with labels: what all text data modules share."""

import copy
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import datasets
import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ..all_splits import all_splits
from ..length_grouped import EvenRows, LengthGroupedBatches, PlannedBatches
from ..load_tokenizer import load_tokenizer
from ..row_loader import check_plan, row_loader
from ..tokenizer_fingerprint import tokenizer_fingerprint
from ..tokens import tokenise
from .labels import class_label, label_name, label_or_none, label_set, numbers_of, plain
from .rows import Augmentation, Collate, Rows, Splits, UNLABELLED
from .word_pieces import train_word_pieces

log = logging.getLogger("lightning_distill")

TASKS = ("classification", "multi_label", "regression")
Tokenizer = str | PreTrainedTokenizerBase | None


class TextDataModule(L.LightningDataModule):
    """Rows of one text, or a pair, and a label; subclasses write `load`.

    A batch is a dict of tensors `input_ids` and `attention_mask` (rows, tokens), others that the
    tokenizer gives, `labels`, and `row`, the row's number in its split (-1 for a repeat that only
    evens out the ranks). If the teacher has another tokenizer, `teacher` holds its tensors.

    Args:
        text: column of the text.
        text_pair: column of a second text, for tasks on pairs.
        label: column of the label; may be absent or empty where rows are unlabelled.
        task: `classification` (int64 labels, -100 without), `multi_label` (a list of labels
            per row) or `regression` (numbers, NaN without).
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
        num_workers: processes that collate ahead of the training; by default two beside a GPU, into
            pinned memory, and none on a CPU, whose cores they would take from it.
        seed: for choosing rows and their order.

    Raises:
        ValueError: for data and options that cannot be trained on; each says what to do.
    """

    def __init__(
        self,
        text: str = "text",
        text_pair: str | None = None,
        label: str = "label",
        task: str = "classification",
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
    ):
        super().__init__()
        self.text, self.text_pair, self.label, self.task = text, text_pair, label, task
        if isinstance(label_names, str):
            raise ValueError(
                "`label_names` must be a list of all labels, as in [bad,good], got "
                f"{label_names!r}."
            )
        self.label_names = None if label_names is None else [str(n) for n in label_names]
        self.tokenizer, self.teacher_tokenizer = tokenizer, teacher_tokenizer
        self.vocab_size, self.max_length = vocab_size, max_length
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.length_bucketing, self.labelled_rows = length_bucketing, labelled_rows
        self.drop_unlabelled, self.validation_fraction = drop_unlabelled, validation_fraction
        self.num_workers, self.seed = num_workers, seed
        self.tokens_per_batch, self.augmentation, self.views = tokens_per_batch, augmentation, views
        self.num_labels: int | None = None
        self.num_rows: int | None = None
        self._cut_validation = False
        self.splits: dict[str, Rows] = {}
        self._check_options()

    def load(self) -> dict[str, datasets.Dataset]:
        """The splits `train` and, if there are any, `validation` and `test`."""
        raise TypeError(f"{type(self).__name__} must define `load()`.")

    def replace(self, **changes: Any) -> "TextDataModule":
        """The same rows under other options, such as `drop_unlabelled=True`; nothing is reread."""
        allowed = {
            "labelled_rows",
            "drop_unlabelled",
            "augmentation",
            "batch_size",
            "eval_batch_size",
            "length_bucketing",
            "num_workers",
            "seed",
            "tokens_per_batch",
            "views",
        }
        if not changes.keys() <= allowed:
            raise ValueError(
                f"`replace` changes {', '.join(sorted(allowed))}, got {', '.join(changes)}."
            )
        changed = copy.copy(self)
        for name, value in changes.items():
            setattr(changed, name, value)
        changed._check_options()
        if changed.splits:
            changed._check_labels()
            changed._check_augmentation()
        return changed

    def setup(self, stage: str | None = None) -> None:
        """Load, check and tokenise; a second call does nothing."""
        if self.splits:
            return
        given = self.load()
        self._cut_validation = "validation" not in given
        splits = all_splits(given, self.validation_fraction, self.seed, type(self).__name__)
        for name, split in splits.items():
            self._check_columns(name, split)
        labels = self._read_labels(splits)
        self.tokenizer = self._build_tokenizer(splits["train"])
        if self.teacher_tokenizer is not None:
            self.teacher_tokenizer = load_tokenizer(self.teacher_tokenizer)
            if self.teacher_tokenizer.get_vocab() == self.tokenizer.get_vocab():
                self.teacher_tokenizer = None
        for name, split in splits.items():
            self.splits[name] = self._tokenise(split, labels[name])
        # The rows of a batch are numbered below it.
        self.num_rows = len(self.splits["train"])
        self._check_labels()
        self._check_augmentation()

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of the training rows, those without labels too unless dropped."""
        rows = self._training_rows()
        if self.drop_unlabelled:
            rows = rows.labelled()
        sampler = LengthGroupedBatches(
            rows.lengths,
            self.batch_size,
            self.seed,
            grouped=self.length_bucketing,
            tokens_per_batch=self.tokens_per_batch,
            views=self.views,
        )
        return self._loader(rows, sampler)

    def _training_rows(self) -> Rows:
        rows = self.splits["train"]
        if self.labelled_rows is not None:
            rows = rows.keeping_labels(self.labelled_rows, self.seed)
        return rows.augmented_by(self.augmentation, self.seed)

    def val_dataloader(self) -> DataLoader:
        """All validation rows, once."""
        rows = self.splits["validation"]
        return self._loader(rows, EvenRows(rows.lengths, self.eval_batch_size))

    def test_dataloader(self) -> DataLoader:
        """All test rows, once."""
        rows = self.splits["test"]
        return self._loader(rows, EvenRows(rows.lengths, self.eval_batch_size))

    def row_lengths(self) -> dict[str, np.ndarray]:
        """Tokens of every row of each split, shape (rows,); of both models' texts the longer."""
        return {name: rows.lengths for name, rows in self.splits.items()}

    def rows_dataloader(
        self, plan: Sequence[tuple[str, Sequence[int], int | None]], num_workers: int | None = None
    ) -> DataLoader:
        """Batches of the rows that a plan names, in its order.

        Each is what training or evaluation would give of these rows, and `row` holds their numbers.
        Lightning does not shard it: on several ranks, each makes a loader of its own plan.

        Args:
            plan: for each batch the split (`train`, `validation` or `test`), row numbers, and the
                view under which training rows are augmented; `None` augments nothing, and rows of
                other splits never are.
            num_workers: processes that collate; those of the data module by default.

        Raises:
            ValueError: for a split or a row that there is not.
        """
        check_plan(plan, self.splits)
        splits = Splits({**self.splits, "train": self._training_rows()})
        return self._loader(splits, PlannedBatches(plan), num_workers)

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        teacher = self.teacher_tokenizer
        return {
            "text": self.text,
            "text_pair": self.text_pair,
            "max_length": self.max_length,
            # Without the address that a function's or a plain object's repr has.
            "augmentation": (
                None
                if self.augmentation is None
                else re.sub(" at 0x[0-9a-f]+", "", repr(self.augmentation))
            ),
            "augmentation_seed": (
                None if self.augmentation is None else getattr(self.augmentation, "seed", self.seed)
            ),
            "views": self.views,
            "student_tokenizer": tokenizer_fingerprint(self.tokenizer),
            # The same where the teacher has no tokenizer of its own.
            "teacher_tokenizer": tokenizer_fingerprint(
                self.tokenizer if teacher is None else teacher
            ),
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
        }

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all tokens and labels, and of the tokenizer's vocabulary."""
        assert isinstance(self.tokenizer, PreTrainedTokenizerBase)
        digest = hashlib.sha256(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode())
        for name, rows in sorted(self.splits.items()):
            digest.update(name.encode())
            tokens = rows.student["input_ids"]
            # In one form, whatever types the rows are held in.
            digest.update(tokens.offsets.astype("<i8").tobytes())
            digest.update(tokens.values.astype("<i4").tobytes())
            digest.update(rows.labels.numpy().tobytes())
        return digest.hexdigest()

    # Checks and reading.

    def _check_options(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"`task` must be one of {', '.join(TASKS)}, got {self.task!r}.")
        for name, least in (
            ("batch_size", 1),
            ("eval_batch_size", 1),
            ("max_length", 3),
            ("vocab_size", 50),
            ("num_workers", 0),
            ("labelled_rows", 1),
            ("tokens_per_batch", 1),
            ("views", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            optional = ("labelled_rows", "num_workers", "tokens_per_batch", "views")
            if value is None and name in optional:
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"`{name}` must be a whole number, got {value!r}.")
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}.")
        for name in ("length_bucketing", "drop_unlabelled"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` must be true or false, got {getattr(self, name)!r}.")
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
        fraction = self.validation_fraction
        if not isinstance(fraction, int | float) or not 0 < fraction < 1:
            raise ValueError(f"`validation_fraction` lies between 0 and 1, got {fraction!r}.")

    def _check_columns(self, name: str, split: datasets.Dataset) -> None:
        columns = split.column_names
        for option in ("text", "text_pair"):
            wanted = getattr(self, option)
            if wanted is None:
                continue
            if wanted not in columns:
                near = get_close_matches(wanted, columns, n=1)
                hint = f" Did you mean {option}={near[0]}?" if near else ""
                raise ValueError(
                    f"The {name} data has no column {wanted!r} ({option}); it has "
                    f"{', '.join(columns)}.{hint} A file without a header needs "
                    "data.columns=[text,label]."
                )
            empty = 0
            for i, value in enumerate(split[wanted]):
                if not isinstance(value, str):
                    raise ValueError(
                        f"Column {wanted!r} of the {name} data must hold text, but row {i} holds "
                        f"{value!r} ({type(value).__name__})."
                    )
                empty += not value.strip()
            if empty:
                log.warning("%d texts of the %s data are empty (column %r)", empty, name, wanted)

    def _read_labels(self, splits: Mapping[str, datasets.Dataset]) -> dict[str, torch.Tensor]:
        columns = {}
        for name, split in splits.items():
            if self.label in split.column_names:
                columns[name] = self._values(split)
            elif name == "train" and self.labelled_rows is None and not self.drop_unlabelled:
                near = get_close_matches(self.label, split.column_names, n=1)
                hint = f" Did you mean label={near[0]}?" if near else ""
                log.warning(
                    "the training data has no column %r: every row is unlabelled, and only the "
                    "teacher is learnt from.%s",
                    self.label,
                    hint,
                )
                columns[name] = [None] * len(split)
            else:
                near = get_close_matches(self.label, split.column_names, n=1)
                hint = f" Did you mean label={near[0]}?" if near else ""
                raise ValueError(
                    f"The {name} data has no column {self.label!r} (label); it has "
                    f"{', '.join(split.column_names)}.{hint}"
                )
        if self.task == "regression":
            self.num_labels = 1
            return {name: numbers_of(values, name) for name, values in columns.items()}
        if self.label_names is None:
            self.label_names = self._names_of(splits, columns)
        self.num_labels = len(self.label_names)
        if self.num_labels < 2:
            raise ValueError(
                f"There is only one class ({', '.join(self.label_names) or 'none'}): nothing to "
                "tell apart. Is data.label the right column?"
            )
        read = self._classes if self.task == "classification" else self._label_sets
        return {name: read(values, name) for name, values in columns.items()}

    def _values(self, split: datasets.Dataset) -> list[Any]:
        """Labels of every row, by name where the data set numbers them; None without."""
        values = [label_or_none(v) for v in split[self.label]]
        feature = class_label(split, self.label)
        if feature is None or self.task == "regression":
            return values

        def name(value: Any) -> Any:
            if isinstance(value, list):
                return [name(v) for v in value]
            return feature.int2str(value) if isinstance(value, int) else value

        return [name(v) for v in values]

    def _names_of(
        self, splits: Mapping[str, datasets.Dataset], columns: Mapping[str, list[Any]]
    ) -> list[str]:
        for split in splits.values():
            feature = class_label(split, self.label)
            if feature is not None:
                return list(feature.names)
        found: set[Any] = set()
        for name in ("train", "validation"):
            # Validation rows that were cut from these may hold all rows of a rare class.
            if name == "validation" and found and not self._cut_validation:
                continue
            for value in columns[name]:
                if value is None:
                    continue
                if isinstance(value, list | tuple | dict) and self.task != "multi_label":
                    raise ValueError(
                        f"Label {value!r} of the {name} data is a list, but data.task="
                        f"{self.task} has one label per row. For several use data.task=multi_label."
                    )
                found.update(label_set(value) if self.task == "multi_label" else [value])
        found = {plain(value) for value in found}
        for value in found:
            if isinstance(value, float):
                raise ValueError(
                    f"Label {value} is no class; classes are whole numbers or words. For numbers "
                    "to be predicted use data.task=regression."
                )
            if isinstance(value, int | float) and value < 0:
                raise ValueError(
                    f"Label {value} is negative. Classes count from 0; unlabelled rows have no "
                    "label or -100."
                )
        if found and all(isinstance(v, int | float) for v in found):
            return [str(n) for n in sorted(found)]
        return sorted(str(v) for v in found)

    def _classes(self, values: list[Any], split: str) -> torch.Tensor:
        assert self.label_names is not None
        # Given names are normalised like the labels: 1 and "1.0" are the same class.
        numbers = {label_name(name): i for i, name in enumerate(self.label_names)}
        found = []
        for i, value in enumerate(values):
            if value is None:
                found.append(UNLABELLED)
                continue
            number = numbers.get(label_name(value))
            if number is None:
                known = ", ".join(self.label_names[:10])
                raise ValueError(
                    f"Label {value!r} in row {i} of the {split} data is none of the classes "
                    f"({known}). Correct the row, or list all in data.label_names."
                )
            found.append(number)
        return torch.tensor(found)

    def _label_sets(self, values: list[Any], split: str) -> torch.Tensor:
        assert self.label_names is not None
        # Given names are normalised like the labels: 1 and "1.0" are the same class.
        numbers = {label_name(name): i for i, name in enumerate(self.label_names)}
        found = torch.zeros(len(values), len(numbers))
        for i, value in enumerate(values):
            if value is None:
                found[i] = UNLABELLED
                continue
            for label in label_set(value):
                if label_name(label) not in numbers:
                    raise ValueError(
                        f"Label {label!r} in row {i} of the {split} data is none of "
                        f"{', '.join(self.label_names[:10])}. Correct the row, or list all in "
                        "data.label_names."
                    )
                found[i, numbers[label_name(label)]] = 1.0
        return found

    def _check_labels(self) -> None:
        for name in ("validation", "test"):
            if not self.splits[name].has_label.any():
                raise ValueError(
                    f"No row of the {name} data has a label, so nothing can be measured on it."
                )
        available = int(self.splits["train"].has_label.sum())
        if self.labelled_rows is not None and self.labelled_rows > available:
            raise ValueError(
                f"`labelled_rows` is {self.labelled_rows}, but only {available} training rows "
                "have a label."
            )
        classes = self.num_labels if self.task == "classification" else None
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
            texts = list(train[self.text])
            if self.text_pair is not None:
                texts += list(train[self.text_pair])
            return train_word_pieces(texts, self.vocab_size, self.max_length)
        return load_tokenizer(self.tokenizer)

    def _tokenise(self, split: datasets.Dataset, labels: torch.Tensor) -> "Rows":
        texts = [list(split[self.text])]
        if self.text_pair is not None:
            texts.append(list(split[self.text_pair]))

        own = tokenise(texts, self.tokenizer, self.max_length)
        other = None
        if self.teacher_tokenizer is not None:
            other = tokenise(texts, self.teacher_tokenizer, self.max_length)
        return Rows(own, other, labels, torch.arange(len(labels)))

    def _loader(self, rows: Any, sampler: Any, num_workers: int | None = None) -> DataLoader:
        collate = Collate(self.tokenizer, self.teacher_tokenizer)
        num_workers = self.num_workers if num_workers is None else num_workers
        return row_loader(rows, sampler, collate, num_workers)
