"""Sentences of words with a tag for each: what all data modules of them share."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ...tasks.labels import UNLABELLED
from ..ragged import Ragged
from .row_labels import read_row_labels
from .rows import Collate, Rows
from .text import TextDataModule
from .word_tokens import tokens_of_words


class TaggedWords(TextDataModule):
    """Words with tags, for `TokenClassification`; subclasses write `load`.

    The first token of each word has the word's tag in `labels` and is true in `word_mask`; all
    other tokens have -100. Where the teacher has another tokenizer, the words that both read count,
    and `teacher_place` says at which of the teacher's tokens a word begins that a token of the
    student begins. Where sentences are read in windows, `word_number` numbers all words of a split,
    with a number left out between two sentences. Where a sentence has a label of its own too, such
    as the intent of a command, it is in `row_labels`, int64 (rows,), -100 without.

    Args:
        row_label: column of a label of the whole sentence; may be empty where it has none. `None`
            if there is no such column.
        row_label_names: all such labels in order; by default those of the training sentences,
            sorted.
        stride: sentences longer than `max_length` are read in windows that overlap by so many
            tokens; `None` cuts them, and their tags. A word counts in one window, that which shows
            more around it.
        options: those of [`TextDataModule`][]; `text` and `label` are lists of words and of tags.

    Raises:
        ValueError: for sentences without words; for windows where the teacher has another
            tokenizer, or where whole sentences have labels.
    """

    label_of: ClassVar[str] = "words"
    label_option: ClassVar[str] = "tags"
    lost_with_cut: ClassVar[str] = (
        ", and neither their last words nor the tags of these are read; data.stride=32 reads them "
        "in windows that overlap"
    )
    whole_numbers: ClassVar[Mapping[str, int]] = {**TextDataModule.whole_numbers, "stride": 0}
    optional: ClassVar[frozenset[str]] = TextDataModule.optional | {"stride"}

    def __init__(
        self,
        stride: int | None = None,
        row_label: str | None = None,
        row_label_names: Sequence[str] | None = None,
        **options: Any,
    ):
        self.stride, self.row_label = stride, row_label
        if isinstance(row_label_names, str):
            raise ValueError(
                "`row_label_names` must be a list of all labels, as in [play,book], got "
                f"{row_label_names!r}."
            )
        names = None if row_label_names is None else [str(name) for name in row_label_names]
        self.row_label_names = names
        super().__init__(**options)

    def collate(self) -> "TokenCollate":
        """What pads the rows of a batch."""
        return TokenCollate(self.tokenizer, self.teacher_tokenizer)

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        return {**super().preprocessing(), "stride": self.stride}

    def _check_options(self) -> None:
        super()._check_options()
        if self.stride is not None and self.stride > self.max_length // 2:
            raise ValueError(
                f"`stride` is {self.stride}, by which windows of {self.max_length} tokens "
                f"(`max_length`) overlap: it must be at most {self.max_length // 2}."
            )
        if self.stride is not None and self.row_label is not None:
            raise ValueError(
                f"`row_label` is {self.row_label!r}, a label of the whole sentence, and a window "
                f"(`stride` is {self.stride}) shows a part of it: set data.stride=null and raise "
                "data.max_length."
            )
        names = self.row_label_names
        if names and len(set(names)) < len(names):
            raise ValueError(f"`row_label_names` names a label twice: {', '.join(names)}.")

    def _read_labels(
        self, splits: Mapping[str, datasets.Dataset], validation_is_cut: bool
    ) -> dict[str, Any]:
        """Of each split the tags, and the labels of whole sentences if these have any."""
        tags = super()._read_labels(splits, validation_is_cut)
        if self.row_label is None:
            return {name: (own, None) for name, own in tags.items()}
        rows, self.row_label_names = read_row_labels(
            self.row_label, self.row_label_names, splits, validation_is_cut, texts=[self.text]
        )
        return {name: (own, rows[name]) for name, own in tags.items()}

    def _usable(self, name: str, split: datasets.Dataset) -> datasets.Dataset:
        self._check_names(name, split)
        tags = split[self.label] if self.label in split.column_names else [None] * len(split)
        kept = []
        for i, (words, own) in enumerate(zip(split[self.text], tags, strict=True)):
            fault = fault_of(words, own, f"row {i} of the {name} data")
            if fault is None:
                kept.append(i)
            else:
                self.bad_rows.add(name, fault)
        return split if len(kept) == len(split) else split.select(kept)

    def _check_names(self, name: str, split: datasets.Dataset) -> None:
        if self.text not in split.column_names:
            raise ValueError(
                f"The {name} data has no column {self.text!r}; it has "
                f"{', '.join(split.column_names)}. Name the one with lists of words, as in "
                "data.words=tokens."
            )

    def _texts(self, split: datasets.Dataset) -> list[list[str]]:
        return [[" ".join(words) for words in split[self.text]]]

    def _tokenise(
        self, split: datasets.Dataset, labels: tuple[Sequence[list[int]], torch.Tensor | None]
    ) -> "TokenRows":
        tags_of_rows, row_labels = labels
        rows = list(split[self.text])
        assert isinstance(self.tokenizer, PreTrainedTokenizerBase)
        columns = tokens_of_words(rows, self.tokenizer, self.max_length, self.stride)
        teacher = None
        if self.teacher_tokenizer is not None:
            if self.stride is not None:
                raise ValueError(
                    "The teacher has another tokenizer than the student, so that windows of equal "
                    "length show them other words: set data.stride=null and raise data.max_length."
                )
            assert isinstance(self.teacher_tokenizer, PreTrainedTokenizerBase)
            teacher = tokens_of_words(rows, self.teacher_tokenizer, self.max_length)
        counts = np.array([len(row) for row in rows])
        of_row = np.arange(len(rows))
        if self.stride is not None:
            of_row = columns.pop("of_row").values
        begun = columns.pop("begun")
        words = np.concatenate([[0], np.cumsum(counts)])[of_row]
        first = begun.values > 0
        # The number of the word of each first token, among the words of all rows.
        places = np.repeat(words, begun.lengths)[first] + begun.values[first] - 1
        if len(of_row) > len(rows):
            numbers = np.zeros(len(first), dtype=np.int64)
            # From 1, and one is left out between two rows.
            numbers[first] = places + np.repeat(of_row, begun.lengths)[first] + 1
            columns["word_number"] = Ragged(numbers, begun.offsets)
        if teacher is not None:
            at = _word_places(teacher.pop("begun"), counts)
            column = np.zeros(len(first), dtype=np.int64)
            column[first] = np.maximum(at[places], 0)
            columns["teacher_place"] = Ragged(column, begun.offsets)
            both = at[places] >= 0
            first[first], places = both, places[both]
        tags = np.full(len(first), UNLABELLED, dtype=np.int64)
        tags[first] = np.concatenate(
            [own or [UNLABELLED] * n for own, n in zip(tags_of_rows, counts, strict=True)]
        )[places]
        columns["labels"] = Ragged(tags, begun.offsets)
        columns["word_mask"] = Ragged(first.astype(np.int8), begun.offsets)
        numbers_of_rows = torch.arange(len(of_row))
        made = TokenRows(
            columns, teacher, torch.zeros(len(of_row), 0), numbers_of_rows, of_row, row_labels
        )
        read = np.zeros(counts.sum(), dtype=bool)
        read[places] = True
        made.cut = np.zeros(len(of_row), dtype=bool)
        if self.stride is None:
            made.cut = ~np.logical_and.reduceat(read, words)
        return made


def fault_of(words: Any, tags: Any, where: str) -> str | None:
    """What is wrong with a row of words and tags, if anything is.

    Args:
        words: a list of them.
        tags: as many; `None` if the row has none.
        where: the row, as an error names it.
    """
    for what, value in (("words", words), ("tags", tags)):
        if not isinstance(value, list | tuple) and (what == "words" or value is not None):
            return f"{where[0].upper()}{where[1:]} must hold a list of {what}, got {value!r}."
    if not words:
        return f"There are no words in {where}."
    tags = words if tags is None else tags
    counts = f"there are {len(words)} words and {len(tags)} tags."
    if len(words) > len(tags):
        return f"Word {len(tags)} ({words[len(tags)]!r}) in {where} has no tag: {counts}"
    if len(tags) > len(words):
        return f"Tag {len(words)} ({tags[len(words)]!r}) in {where} has no word: {counts}"
    return None


def _word_places(begun: Ragged, counts: np.ndarray) -> np.ndarray:
    """The place in its row of the first token of each word of all rows; -1 for one not read."""
    words = np.concatenate([[0], np.cumsum(counts)])
    found = np.full(words[-1], -1, dtype=np.int64)
    first = begun.values > 0
    within = np.arange(len(first)) - np.repeat(begun.offsets[:-1], begun.lengths)
    found[np.repeat(words[:-1], begun.lengths)[first] + begun.values[first] - 1] = within[first]
    return found


class TokenRows(Rows):
    """Rows whose labels are columns beside their tokens.

    Args:
        of_row: the sentence that each row shows, or a window of it, shape (rows,).
        row_labels: of each sentence as a whole, -100 without, shape (rows,); `None` if sentences
            have none.
    """

    def __init__(
        self,
        student: dict[str, Ragged],
        teacher: dict[str, Ragged] | None,
        labels: torch.Tensor,
        numbers: torch.Tensor,
        of_row: np.ndarray,
        row_labels: torch.Tensor | None = None,
    ):
        super().__init__(student, teacher, labels, numbers)
        self.of_row, self.row_labels = of_row, row_labels

    def __getitem__(self, chosen: list[int]) -> dict[str, Any]:
        """What is to be collated, with the label of each sentence if these have any."""
        found = super().__getitem__(chosen)
        if self.row_labels is None:
            return found
        asked = np.asarray(chosen, dtype=np.int64)
        numbers = self.numbers.numpy()[np.where(asked < 0, -asked - 1, asked)]
        return {**found, "row_labels": self.row_labels[torch.from_numpy(numbers)]}

    def labels_at(self, rows: torch.Tensor) -> None:
        """Nothing: they come with the tokens."""
        return

    @property
    def has_label(self) -> torch.Tensor:
        """Which rows have a tag, or a label as a whole, shape (rows,)."""
        tags = self.student["labels"]
        known = torch.from_numpy(np.maximum.reduceat(tags.values, tags.offsets[:-1]) != UNLABELLED)
        if self.row_labels is not None:
            known = known | (self.row_labels != UNLABELLED)
        return known[self.numbers]

    def contents(self) -> Iterator[bytes]:
        """All tokens and tags, and labels of whole sentences."""
        for name in ("input_ids", "labels"):
            yield from self.student[name].contents()
        if self.row_labels is not None:
            yield self.row_labels.numpy().tobytes()

    def keeping_labels(self, count: int, seed: int) -> Rows:
        """All rows, but only `count` sentences with their labels, in all of their windows."""
        generator = torch.Generator().manual_seed(seed)
        labelled = np.unique(self.of_row[self.numbers[self.has_label].numpy()])
        order = torch.randperm(len(labelled), generator=generator)
        tags = self.student["labels"]
        kept = np.isin(self.of_row, labelled[order[:count].numpy()])
        values = np.where(np.repeat(kept, tags.lengths), tags.values, UNLABELLED)
        of_rows = self.row_labels
        if of_rows is not None:
            of_rows = of_rows.masked_fill(torch.from_numpy(~kept), UNLABELLED)
        student = {**self.student, "labels": Ragged(values, tags.offsets)}
        return self._with(student=student, row_labels=of_rows)


class TokenCollate(Collate):
    """Pads tokens and what stands beside them."""

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Pad the rows and give them as a batch."""
        batch = super().__call__(rows)
        if "row_labels" in rows:
            batch["row_labels"] = rows["row_labels"]
        if "teacher_place" in batch and self.teacher_tokenizer.padding_side == "left":
            mask = batch["teacher"]["attention_mask"]
            batch["teacher_place"] += (mask.shape[1] - mask.sum(1))[:, None] * batch["word_mask"]
        return batch
