"""Tokenised rows in splits, and the loaders over them: what all our data modules share."""

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import datasets
import lightning as L
import numpy as np
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from .bad_rows import BadRows
from .length_grouped import EvenRows, LengthGroupedBatches, PlannedBatches
from .row_loader import check_plan, Plan, row_loader, Splits
from .tokenizer_fingerprint import tokenizer_fingerprint

Tokenizer = str | PreTrainedTokenizerBase | None


class RowsModule(L.LightningDataModule):
    """Rows of tokens that are held in memory, in the splits `train`, `validation` and `test`.

    A subclass gives its options to `__init__`, calls `_check_options` at its end, and fills
    `splits` in `setup`. A split is a data set that is indexed by a list of row numbers; it has
    `lengths`, the tokens of every row, and `contents`, what a fingerprint is made of. A subclass
    may further define `training_rows`, `training_sampler` and `collate`.

    Args:
        tokenizer: one, or where to load it.
        teacher_tokenizer: the teacher's, if it is another one.
        max_length: longer rows are cut, in tokens.
        batch_size: rows per step and process.
        eval_batch_size: rows per batch in validation and test.
        length_bucketing: batch rows of similar length.
        validation_fraction: cut from the training rows if there is no validation split.
        num_workers: processes that collate; see [`worker_count`][].
        seed: for choosing rows and their order.
        skip_bad_rows: leave out rows that cannot be used, and count them; else the first is an
            error.

    Attributes:
        bad_rows: what the readers of files tell of such rows.
        num_rows: how many training rows there are; `row` of a batch lies below it. `None` before
            `setup`, and for a stream.
        num_labels: how many classes there are, or numbers that are predicted; `None` if the labels
            are tokens.
        label_names: the classes in the order of their numbers; `None` where they have no names.
        splits: the rows of each split, after `setup`.
        whole_numbers: the options that are whole numbers, and the least of each.
        optional: those of them that may be `None`.
        flags: the options that are true or false.
        replaceable: what `replace` may change.
        without_meaning: what `replace` takes and ignores, for it changes no row of this kind.
        one_tokenizer: whether student and teacher must read the same tokens.
    """

    whole_numbers: ClassVar[Mapping[str, int]] = {
        "batch_size": 1,
        "eval_batch_size": 1,
        "max_length": 2,
        "num_workers": 0,
        "seed": 0,
    }
    optional: ClassVar[frozenset[str]] = frozenset({"num_workers"})
    flags: ClassVar[tuple[str, ...]] = ("length_bucketing", "skip_bad_rows")
    replaceable: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "eval_batch_size", "length_bucketing", "num_workers", "seed"}
    )
    without_meaning: ClassVar[frozenset[str]] = frozenset()
    one_tokenizer: ClassVar[bool] = False

    def __init__(
        self,
        tokenizer: Tokenizer,
        teacher_tokenizer: Tokenizer,
        max_length: int,
        batch_size: int,
        eval_batch_size: int,
        length_bucketing: bool,
        validation_fraction: float,
        num_workers: int | None,
        seed: int,
        skip_bad_rows: bool = False,
    ):
        super().__init__()
        self.skip_bad_rows = skip_bad_rows
        self.bad_rows = BadRows(skip_bad_rows)
        self.tokenizer, self.teacher_tokenizer = tokenizer, teacher_tokenizer
        self.max_length, self.length_bucketing = max_length, length_bucketing
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.validation_fraction = validation_fraction
        self.num_workers, self.seed = num_workers, seed
        self.num_rows: int | None = None
        self.num_labels: int | None = None
        self.label_names: list[str] | None = None
        self.splits: dict[str, Any] = {}

    def load(self) -> dict[str, datasets.Dataset]:
        """The splits `train` and, if there are any, `validation` and `test`."""
        raise TypeError(f"{type(self).__name__} must define `load()`.")

    def replace(self, **changes: Any) -> Any:
        """The same rows under other options, such as `batch_size=8`; nothing is reread.

        Options that mean nothing for rows of this kind may be given and change nothing.

        Raises:
            ValueError: for an option that decides what the rows are.
        """
        allowed = self.replaceable | self.without_meaning
        if not changes.keys() <= allowed:
            raise ValueError(
                f"`replace` changes {', '.join(sorted(allowed))}, got {', '.join(changes)}."
            )
        changed = copy.copy(self)
        for name, value in changes.items():
            if name in self.replaceable:
                setattr(changed, name, value)
        changed._check_options()
        return changed

    # Loaders.

    def training_rows(self) -> Any:
        """The training rows as a model is given them, such as augmented ones."""
        return self.splits["train"]

    def training_sampler(self, lengths: np.ndarray) -> LengthGroupedBatches:
        """Which rows make a batch.

        Args:
            lengths: of every row, in tokens.
        """
        return LengthGroupedBatches(
            lengths, self.batch_size, self.seed, grouped=self.length_bucketing
        )

    def collate(self) -> Any:
        """What makes a batch of what a split gives; `None` takes it as it is."""
        return None

    def train_dataloader(self) -> Any:
        """Shuffled batches of the training rows."""
        rows = self.training_rows()
        return self._loader(rows, self.training_sampler(rows.lengths))

    def val_dataloader(self) -> DataLoader:
        """All validation rows, once."""
        return self._every_row("validation")

    def test_dataloader(self) -> DataLoader:
        """All test rows, once."""
        return self._every_row("test")

    def row_lengths(self) -> dict[str, np.ndarray]:
        """Tokens of every row of each split, shape (rows,); of both models' tokens the more."""
        return {name: rows.lengths for name, rows in self.splits.items()}

    def rows_dataloader(self, plan: Plan, num_workers: int | None = None) -> DataLoader:
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
        splits = dict(self.splits)
        if "train" in splits:
            splits["train"] = self.training_rows()
        return self._loader(Splits(splits), PlannedBatches(plan), num_workers)

    def _every_row(self, split: str) -> DataLoader:
        rows = self.splits[split]
        return self._loader(rows, EvenRows(rows.lengths, self.eval_batch_size))

    def _loader(self, rows: Any, sampler: Any, num_workers: int | None = None) -> DataLoader:
        num_workers = self.num_workers if num_workers is None else num_workers
        return row_loader(rows, sampler, self.collate(), num_workers)

    # What the rows are, for who keeps something that was made of them.

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        teacher = self.teacher_tokenizer
        return {
            "max_length": self.max_length,
            "student_tokenizer": tokenizer_fingerprint(self.tokenizer),
            # The same where the teacher has no tokenizer of its own.
            "teacher_tokenizer": tokenizer_fingerprint(
                self.tokenizer if teacher is None else teacher
            ),
        }

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all tokens and labels, and of the tokenizer's vocabulary."""
        assert isinstance(self.tokenizer, PreTrainedTokenizerBase)
        digest = hashlib.sha256(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode())
        for name, rows in sorted(self.splits.items()):
            digest.update(name.encode())
            for part in rows.contents():
                digest.update(part)
        return digest.hexdigest()

    # Checks.

    def _check_options(self) -> None:
        for name, least in self.whole_numbers.items():
            value = getattr(self, name)
            if value is None and name in self.optional:
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"`{name}` must be a whole number, got {value!r}.")
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}.")
        for name in self.flags:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` must be true or false, got {getattr(self, name)!r}.")
        fraction = self.validation_fraction
        if not isinstance(fraction, int | float) or not 0 < fraction < 1:
            raise ValueError(f"`validation_fraction` lies between 0 and 1, got {fraction!r}.")
