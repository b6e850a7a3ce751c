"""Sources and the texts that are to be written from them: what all data modules of pairs share."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

import datasets
import numpy as np

from ...tasks import SequenceToSequence, Task, task_named
from ..all_splits import all_splits
from ..language.byte_pairs import train_byte_pairs
from ..load_tokenizer import load_tokenizer
from ..ragged import Ragged
from ..rows_module import RowsModule, Tokenizer
from ..tokenizer_fingerprint import tokenizer_fingerprint
from ..tokens import tokenise
from ..truncation import counts_of_cut, say_cut
from .keep import check_filters, Filter
from .pair_rows import PairCollate, PairRows
from .teacher_texts import TeacherTexts


class PairDataModule(RowsModule):
    """Rows of a source and a target, such as a text and its summary; subclasses write `load`.

    A batch is a dict of tensors `input_ids` and `attention_mask` (rows, tokens) of the source;
    `labels` (rows, target tokens), the tokens of the target with an end token, and -100 behind;
    `row`, the row's number in its split (-1 for a repeat that only evens out the ranks). What a
    decoder reads is made of the labels.

    For sequence-level distillation (Kim and Rush, 2016, https://aclanthology.org/D16-1139) the
    training targets are those that a teacher wrote: `targets` is a file of `job=generate`. Filters
    keep the rows whose text is good enough, as in distil-whisper (Gandhi et al., 2023,
    https://arxiv.org/abs/2311.00430).

    Args:
        source: column of the text that is read.
        target: column of the text that is to be written.
        prefix: stands before every source, as `summarize: ` for T5.
        task: `sequence_to_sequence`, or a class of one's own that extends it.
        tokenizer: one, or where to load it; by default a byte-level BPE is trained on the training
            texts. Both models share it.
        teacher_tokenizer: must be the same, if it is given.
        vocab_size: of a tokenizer that is trained here.
        max_length: longer sources are cut, in tokens.
        max_target_length: longer targets are cut, in tokens, the end token included.
        targets: a file of texts that a teacher wrote, which take the place of the training targets.
        keep: filters of these texts, such as
            [`KeepByWordErrorRate`][lightning_distill.data.KeepByWordErrorRate]; a row must pass
            all.
        batch_size: rows per step and process.
        eval_batch_size: rows per batch in validation and test.
        length_bucketing: batch rows of similar length, of source and target together.
        validation_fraction: cut from the training rows if there is no validation split.
        num_workers: processes that collate; see
            `worker_count`.
        seed: for choosing rows and their order.
        skip_bad_rows: leave out rows without a source or a target, and count them.

    Raises:
        ValueError: for data and options that cannot be trained on; each says what to do.
    """

    whole_numbers: ClassVar[Mapping[str, int]] = {
        **RowsModule.whole_numbers,
        "max_target_length": 2,
    }
    one_tokenizer: ClassVar[bool] = True
    without_meaning: ClassVar[frozenset[str]] = frozenset(
        {"augmentation", "drop_unlabelled", "labelled_rows", "tokens_per_batch", "views"}
    )

    def __init__(
        self,
        source: str = "source",
        target: str = "target",
        prefix: str = "",
        task: str | Task = SequenceToSequence.name,
        tokenizer: Tokenizer = None,
        teacher_tokenizer: Tokenizer = None,
        vocab_size: int = 4000,
        max_length: int = 128,
        max_target_length: int = 64,
        targets: str | None = None,
        keep: Filter | Sequence[Filter] | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        length_bucketing: bool = True,
        validation_fraction: float = 0.1,
        num_workers: int | None = None,
        seed: int = 0,
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
        self.source, self.target, self.prefix, self.task = source, target, prefix, task
        self.vocab_size, self.max_target_length = vocab_size, max_target_length
        self.targets = targets
        self.keep = check_filters(keep)
        if self.keep and targets is None:
            raise ValueError(
                "`keep` chooses among texts of a teacher, and there are none: write them with "
                "job=generate, and name the file, as in data.targets=texts.jsonl."
            )
        self._filtered: int | None = None
        self._check_options()

    def load(self) -> dict[str, datasets.Dataset]:
        """The rows of `train`, and of `validation` and `test` if there are any."""
        raise TypeError(f"{type(self).__name__} must define `load()`.")

    def origin(self, split: str) -> str:
        """Where the rows of a split are from, for errors."""
        return f"the {split} data"

    def setup(self, stage: str | None = None) -> None:
        """Load, check and tokenise; a second call does nothing."""
        if self.splits:
            return
        given = {name: self._checked(name, rows) for name, rows in self.load().items()}
        self.bad_rows.say({name: len(rows) for name, rows in given.items()})
        splits = all_splits(given, self.validation_fraction, self.seed, type(self).__name__)
        texts = {
            name: list(zip(rows["source"], rows["target"], strict=True))
            for name, rows in splits.items()
        }
        self._prepare_tokenizer(texts["train"])
        train = texts["train"]
        if self.targets is not None:
            written = TeacherTexts(self.targets)
            train = written.in_the_place_of(train, self.keep)
            self._filtered = len(texts["train"]) - len(train)
        for name in splits:
            self.splits[name] = self._tokenised(train if name == "train" else texts[name])
        self.num_rows = len(self.splits["train"])
        sizes = {name: len(rows) for name, rows in self.splits.items()}
        say_cut(self._cut("cut"), sizes, self.max_length)
        cut, most = self._cut("cut_targets"), self.max_target_length
        say_cut(cut, sizes, most, "targets", option="max_target_length")

    def collate(self) -> Any:
        """What pads the rows of a batch."""
        return PairCollate(self.tokenizer)

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        return {
            **super().preprocessing(),
            "prefix": self.prefix,
            "max_target_length": self.max_target_length,
            "targets": self.targets,
            "keep": [repr(one) for one in self.keep],
        }

    def counts(self) -> dict[str, int]:
        """How many rows each split has, and how many were left out or cut."""
        train = len(self.splits["train"])
        found = {"train rows": train, "labelled train rows": train}
        for name in ("validation", "test"):
            found[f"{name} rows"] = len(self.splits[name])
        if self._filtered is not None:
            found["train rows left out by data.keep"] = self._filtered
        for name, rows in self.splits.items():
            found[f"{name} target tokens"] = int(rows.targets.lengths.sum())
        cut = counts_of_cut(self._cut("cut"))
        cut |= {f"{n} targets cut": c for n, c in self._cut("cut_targets").items() if c}
        return found | cut | self.bad_rows.counts()

    def _cut(self, which: str) -> dict[str, int]:
        return {name: int(vars(rows)[which].sum()) for name, rows in self.splits.items()}

    # Checks and reading.

    def _check_options(self) -> None:
        super()._check_options()
        task = task_named(self.task)
        if not task.reads_source:
            raise ValueError(
                f"`task` of {type(self).__name__} must be {SequenceToSequence.name}, or a class of "
                f"your own that extends it, got {task.name}."
            )

    def _checked(self, name: str, split: datasets.Dataset) -> datasets.Dataset:
        """Source and target of the rows that have both."""
        there = split.column_names
        for option, column in (("source", self.source), ("target", self.target)):
            if column not in there:
                near = get_close_matches(column, there, n=1)
                hint = f" Did you mean data.{option}={near[0]}?" if near else ""
                # Only the first letter: the rest may be a path.
                origin = self.origin(name)
                raise ValueError(
                    f"{origin[:1].upper()}{origin[1:]} has no column {column!r} (data.{option}); "
                    f"it has {', '.join(there)}.{hint}"
                )
        sources, targets = [], []
        rows = zip(split[self.source], split[self.target], strict=True)
        for i, (source, target) in enumerate(rows):
            read = self._read(name, i, source)
            if read is not None and self._is_text(name, i, "target", target):
                sources.append(read)
                targets.append(target)
        return datasets.Dataset.from_dict({"source": sources, "target": targets})

    def _read(self, split: str, i: int, value: Any) -> str | None:
        """The source that a row holds; `None` if it cannot be used, of which `bad_rows` is told."""
        return value if self._is_text(split, i, "source", value) else None

    def _is_text(self, split: str, i: int, option: str, value: Any) -> bool:
        if isinstance(value, str) and value.strip():
            return True
        self.bad_rows.add(
            split,
            f"Row {i} of {self.origin(split)} must have a {option} (column "
            f"{getattr(self, option)!r}), and it holds {value!r}. Write a text there, or delete "
            "the row.",
        )
        return False

    # Tokens.

    def _prepare_tokenizer(self, train: Sequence[tuple[str, str]]) -> None:
        if self.tokenizer is None:
            texts = [text for pair in train for text in pair]
            self.tokenizer = train_byte_pairs(texts, self.vocab_size, self.max_length)
        self.tokenizer = load_tokenizer(self.tokenizer)
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                "data.tokenizer has no end token, by which a model learns where a text ends; set "
                "tokenizer.eos_token and save it."
            )
        if self.teacher_tokenizer is not None:
            teacher = load_tokenizer(self.teacher_tokenizer)
            if tokenizer_fingerprint(teacher) != tokenizer_fingerprint(self.tokenizer):
                raise ValueError(
                    "Student and teacher have different tokenizers, so what they write cannot be "
                    "compared token by token. Take a student with the teacher's tokenizer, or "
                    "learn from the teacher's texts: job=generate, then data.targets=FILE."
                )
            self.teacher_tokenizer = None

    def _tokenised(self, texts: Sequence[tuple[str, str]]) -> PairRows:
        sources = tokenise([[self.prefix + s for s, _ in texts]], self.tokenizer, self.max_length)
        ids = [self._target_ids(target) for _, target in texts]
        made = PairRows(sources, Ragged.of([row[: self.max_target_length] for row in ids]), texts)
        made.cut = sources.cut
        made.cut_targets = np.array([len(row) > self.max_target_length for row in ids])
        return made

    def _target_ids(self, text: str) -> list[int]:
        tokenizer: Any = self.tokenizer
        ids = list(tokenizer(text_target=text, verbose=False)["input_ids"])
        end = tokenizer.eos_token_id
        return ids if ids and ids[-1] == end else [*ids, end]
