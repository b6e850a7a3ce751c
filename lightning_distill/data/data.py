"""What a data module must have, in three levels, and what a job reads of any of them.

1. [`Trainable`][]: `job=distill` with a loaded teacher, `finetune`, `evaluate` and `inspect` take
   any `LightningDataModule`.
2. [`KeepsTeacher`][]: `teacher=trained` keeps what it has trained, and finds it again.
3. [`Cacheable`][]: `job=cache` asks the teacher every row once, by its number.

A batch is anything that the models take: a mapping, a tuple, a dataclass. Some of its entries have
a meaning for who reads them: `labels`, what is to be predicted; `teacher`, a batch of the teacher's
own, where it reads other tokens; and `row`.

`row` is the number of each sample in its split, shape (rows,), int64, and -1 for a repeat that only
evens out the ranks. It lies below `num_rows` in the training data and stays that of the sample in
every epoch, however often and wherever the sample is drawn. Criteria that remember something of
every training sample, such as [`CRD`][lightning_distill.criteria.CRD], keep `num_rows` of it and
find it by `row`: a data module without these two can do without such criteria only.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import lightning as L
from torch.utils.data import DataLoader

from .pairs.pair_rows import PairRows
from .row_loader import Plan


class Trainable(Protocol):
    """Level 1: models can be trained and measured. Any `LightningDataModule` that has all three.

    Its loaders need no length. Further members are read where they are there, see [`DataFacts`][].
    """

    def prepare_data(self) -> None:
        """Lightning's: called once per host, before `setup`."""

    def setup(self, stage: str) -> None:
        """Lightning's: called in every process. It is called more than once."""

    def train_dataloader(self) -> Any:
        """Batches of the training rows, in another order in each epoch."""

    def val_dataloader(self) -> Any:
        """Batches by which the best checkpoint is chosen; every row once."""

    def test_dataloader(self) -> Any:
        """Batches on which the report's figures are measured; every row once."""


class KeepsTeacher(Trainable, Protocol):
    """Level 2: a teacher that is trained on the rows can be kept, and found by the next run."""

    def fingerprint(self) -> str:
        """The same for the same rows: a digest of all that the models are given, and the labels.

        A kept teacher is found by it, and a cache is known by it.
        """

    def replace(self, **changes: Any) -> Any:
        """The same rows under other options, in another module; this one stays as it is.

        The teacher is trained with `batch_size` and, of `drop_unlabelled`, `labelled_rows`,
        `tokens_per_batch`, `augmentation` and `views`, those that the module has as attributes.
        """


class Cacheable(Protocol):
    """Level 3: the teacher's answers can be written to disk before anything is trained."""

    def fingerprint(self) -> str:
        """As in [`KeepsTeacher`][]."""

    def preprocessing(self) -> Mapping[str, Any]:
        """What decides what the models are given of a row, as plain values that JSON can hold.

        A cache is refused to a run of which it is not the same.
        """

    def row_lengths(self) -> Mapping[str, Sequence[int]]:
        """From a split to the size of each of its rows, such as tokens, shape (rows,).

        Rows of similar size share a batch, and as many rows as there are numbers are asked for.
        """

    def rows_dataloader(self, plan: Plan, num_workers: int | None = None) -> DataLoader:
        """A batch for each entry of a plan, in its order, as training would give these rows.

        Args:
            plan: for each batch the split, row numbers, and the view of augmented rows.
            num_workers: processes that collate; those of the data module by default.
        """


LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
KEEPING = ("fingerprint", "replace")
CACHING = ("fingerprint", "preprocessing", "row_lengths", "rows_dataloader")


def check_trainable(data: Any, job: str, loaders: Sequence[str] = LOADERS) -> None:
    """Refuse a `LightningDataModule` that lacks a loader.

    Args:
        data: the data module.
        job: who needs it, as the user names it.
        loaders: those that this job reads.

    Raises:
        ValueError: naming what is missing.
    """
    missing = [name for name in loaders if not defines(data, name)]
    if missing:
        raise ValueError(
            f"{job} needs data that can train and measure a model: {_lacks(data, missing)} Define "
            "it as in any LightningDataModule (lightning_distill.data.Trainable says what each "
            "gives)."
        )


def check_keeps_teacher(data: Any, job: str) -> None:
    """Refuse data on which a teacher cannot be trained once and found again.

    Raises:
        ValueError: naming what is missing, and the way without it.
    """
    missing = [name for name in KEEPING if not defines(data, name)]
    if missing:
        raise ValueError(
            f"{job} trains a teacher once and finds it again, for which it needs data that can "
            f"keep a teacher: {_lacks(data, missing)} Write it (see "
            "lightning_distill.data.KeepsTeacher), or train the teacher with job=finetune and name "
            "it: teacher=pretrained teacher.path=RUN/student."
        )


def check_cacheable(data: Any, job: str) -> None:
    """Refuse data whose rows cannot be walked over by number.

    Raises:
        ValueError: naming what is missing, and the way without it.
    """
    missing = [name for name in CACHING if not defines(data, name)]
    if missing:
        raise ValueError(
            f"{job} walks over the rows by number, for which it needs data that can be cached: "
            f"{_lacks(data, missing)} Write it (see lightning_distill.data.Cacheable), or let "
            "teacher=caching keep the answers while a student learns."
        )


def _lacks(data: Any, missing: Sequence[str]) -> str:
    return f"{type(data).__name__} lacks {', '.join(missing)}."


def defines(data: Any, name: str) -> bool:
    """Whether a data module has a method, and not only what Lightning's own class says of it."""
    found = getattr(data, name, None)
    # Lightning's own loader only says that there is none.
    inherited = getattr(L.LightningDataModule, name, None)
    return callable(found) and getattr(found, "__func__", found) is not inherited


class DataFacts:
    """What a data module says of itself, or what holds where it says nothing.

    The only place that asks a data module for what it may lack.

    Args:
        data: any `LightningDataModule`. Most of this is known after its `setup`.
    """

    def __init__(self, data: Any):
        self.data = data

    def _said(self, name: str, default: Any = None) -> Any:
        found = getattr(self.data, name, None)
        return default if found is None else found

    @property
    def task(self) -> Any:
        """What its labels mean; `None` where it does not say."""
        return self._said("task")

    @property
    def num_labels(self) -> int | None:
        """How many classes there are, or numbers that are predicted; models are made with it."""
        return self._said("num_labels")

    @property
    def label_names(self) -> list[str] | None:
        """All classes in the order of their numbers; a model with another order is reordered."""
        return self._said("label_names")

    @property
    def has_row_labels(self) -> bool:
        """Whether whole rows may have a label beside those of their words (`row_labels`)."""
        return self._said("row_label") is not None

    @property
    def row_label_names(self) -> list[str] | None:
        """All labels of whole rows in the order of their numbers, where these are known."""
        return self._said("row_label_names") if self.has_row_labels else None

    @property
    def num_row_labels(self) -> int | None:
        """How many labels of whole rows there are."""
        names = self.row_label_names
        return None if names is None else len(names)

    @property
    def num_rows(self) -> int | None:
        """How many training rows there are, above every `row` of a training batch."""
        return self._said("num_rows")

    @property
    def references(self) -> Any:
        """What metrics that ask for it compare predictions with, where labels do not say it all."""
        return self._said("references")

    @property
    def max_length(self) -> int | None:
        """The longest row in tokens; `None` where it does not say."""
        return self._said("max_length")

    @property
    def tokenizer(self) -> Any:
        """The student's; it is saved with the student."""
        return self._said("tokenizer")

    @property
    def teacher_tokenizer(self) -> Any:
        """The teacher's, if it is another one than the student's."""
        return self._said("teacher_tokenizer")

    @property
    def vocabulary_cut(self) -> Any:
        """How the student's tokenizer was made of the teacher's; `None` if it was not."""
        return self._said("vocabulary_cut")

    @property
    def one_tokenizer(self) -> bool:
        """Whether student and teacher must read the same tokens."""
        return bool(self._said("one_tokenizer", False))

    @property
    def architecture(self) -> str | None:
        """How the names of model classes of transformers end that read such rows, if it says so."""
        return self._said("architecture")

    @property
    def image_size(self) -> Any:
        """Pixels of a side of the pictures that the student is given, or height and width."""
        return self._said("image_size")

    @property
    def image_processors(self) -> tuple[Any, Any] | None:
        """How student and teacher are given their pictures; `None` where there are none."""
        own = self._said("image_processor")
        return None if own is None else (own, self._said("teacher_image_processor", own))

    def as_teacher_reads(self) -> Any:
        """The same data, with what the teacher is given of a row in the student's place."""
        given = defines(self.data, "as_teacher_reads")
        return self.data.as_teacher_reads() if given else self.data

    def processors(self, names: Sequence[str]) -> list[Any]:
        """What is saved with a student, of attributes of these names, where it has them."""
        found = (self._said(name) for name in names)
        return [one for one in found if hasattr(one, "save_pretrained")]

    @property
    def splits(self) -> Mapping[str, Any]:
        """The rows of each split with the tokens of both models; empty where they are not held."""
        return self._said("splits", {})

    @property
    def counts(self) -> dict[str, int]:
        """What the report says of the data; `labelled train rows` may be among it."""
        return self.data.counts() if defines(self.data, "counts") else {}

    @property
    def labelled_rows(self) -> int | None:
        """How many training rows have a label; `None` where it does not say."""
        return self.counts.get("labelled train rows")

    @property
    def trained_rows(self) -> Any:
        """Numbers of the training rows that are not left out, shape (rows,); `None` if none is."""
        return self.data.trained_rows() if defines(self.data, "trained_rows") else None

    @property
    def unlabelled(self) -> bool:
        """Whether it is known that no row of any split has a label."""
        return bool(self._said("unlabelled", False))

    @property
    def is_streaming(self) -> bool:
        """Whether training rows are read anew in each epoch, and have no numbers."""
        return bool(self._said("streaming", False))

    @property
    def views(self) -> int:
        """How many views there are of each training row."""
        return self._said("views", 1)

    @property
    def draws_anew(self) -> bool:
        """Whether a training row is another one in each epoch, so that no answer to it is kept."""
        varied = self._said("augmentation") is not None or self._said("mixup") is not None
        return varied and self._said("views") is None

    @property
    def order(self) -> dict[str, Any]:
        """What decides which rows share a batch, and in which order they come."""
        return {name: self._said(name) for name in ("length_bucketing", "seed")}

    @property
    def preprocessing(self) -> Mapping[str, Any] | None:
        """What decides what models are given of a row; `None` where it does not say."""
        return self.data.preprocessing() if defines(self.data, "preprocessing") else None

    @property
    def writes_conversations(self) -> bool:
        """Whether rows are conversations, which a chat template of the tokenizer writes."""
        return "chat_templates" in (self.preprocessing or {})

    def replaced(self, **changes: Any) -> Any:
        """The data under those of the options that it has; itself where it cannot replace any."""
        known = {name: value for name, value in changes.items() if hasattr(self.data, name)}
        return self.data.replace(**known) if known and defines(self.data, "replace") else self.data


def token_lengths(data: Any, side: str) -> tuple[int, int]:
    """The longest row that is held, in tokens, and the largest id in it; 0 where none is held.

    Args:
        data: the data module.
        side: `student` or `teacher`, whose tokens.
    """
    # Another data module may call something else its splits.
    splits = list(DataFacts(data).splits.values())
    held = [getattr(split, side, None) for split in splits]
    rows: list[Any] = [tokens["input_ids"] for tokens in held if tokens is not None]
    # What a decoder is to write has the same ids, and is held beside them.
    rows += _targets(data)
    longest = max((int(split.lengths.max(initial=0)) for split in rows), default=0)
    return longest, max((int(split.values.max(initial=0)) for split in rows), default=0)


def longest_target(data: Any) -> int:
    """The longest text that is to be written of a source, in tokens; 0 where there is none."""
    return max((int(rows.lengths.max(initial=0)) for rows in _targets(data)), default=0)


def _targets(data: Any) -> list[Any]:
    return [rows for split in DataFacts(data).splits.values() for rows in targets_of(split)]


def targets_of(split: Any) -> list[Any]:
    """The tokens of the texts that are to be written of the rows of a split, if they are apart."""
    return [split.targets] if isinstance(split, PairRows) else []
