"""Tokens of documents for causal language models: what their data modules share."""

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import datasets
import numpy as np
from torch.utils.data import DataLoader

from ...tasks import LanguageModelling
from ..all_splits import all_splits
from ..bad_rows import BadRows
from ..length_grouped import LengthGroupedBatches
from ..load_tokenizer import load_tokenizer
from ..row_loader import Plan
from ..rows_module import RowsModule, Tokenizer
from ..tokenizer_fingerprint import tokenizer_fingerprint
from ..truncation import counts_of_cut, say_cut
from .byte_pairs import train_byte_pairs
from .document_tokens import DocumentEncoder
from .row_packer import RowPacker
from .streamed_rows import StreamedRows, StreamLoader

log = logging.getLogger("lightning_distill")

# What a tokenizer that is trained here learns from at most, in characters.
MOST_TO_LEARN_FROM = 64_000_000


class LanguageModelData(RowsModule):
    """Documents for a causal language model; subclasses write `load`.

    A batch is a dict of tensors of shape (rows, tokens): `input_ids`; `labels`, the token that
    FOLLOWS each position, so that `logits[i]` belongs to `labels[i]`, and -100 where nothing is to
    be predicted; `label_bytes`, how many bytes of text the label stands for, for bits per byte.
    `row`, shape (rows,), is the row's number in its split, -1 for a repeat that only evens out the
    ranks. If the teacher has another tokenizer, `teacher` holds its tensors of the same texts, and
    both sides have `spans`, which say for each position which stretch of text the token is of that
    it predicts, see [`token_spans`][]; conversations have none.

    With `packing` a row holds several documents. There are `position_ids`, which begin at 0 with
    each document, and no `attention_mask`: of these transformers makes a mask by which no token
    sees another document, with the attentions `sdpa` and `eager`, and where the model is called
    with `use_cache=False`, as it is in training here. (`flash_attention_2` does so for batches of a
    single row only, and a model without `position_ids` not at all: for these take `packing=false`.)
    Without `packing` a row is one document, cut at `max_length` and padded on the right, with an
    `attention_mask`.

    An end token is put behind every document and is learnt. A document's first token is predicted
    by nothing, unless the tokenizer begins with one of its own. Of a document that is longer than
    the rest of a row, the remainder is in the next row, again from position 0: its first token is
    predicted at the end of the row before, from all that stands there, and its second from the
    first alone. So every token but a document's first is predicted, once.

    If the teacher has another tokenizer, documents are cut into texts that fit a row of both, and
    these are packed whole; nothing is predicted across such a cut.

    Args:
        tokenizer: one, or where to load it; by default a byte-level BPE is trained on the training
            texts, of which it reads 64 million characters at most.
        teacher_tokenizer: one, or where to load it; the same by default.
        vocab_size: of a tokenizer that is trained here.
        max_length: of a row, in tokens.
        packing: put several documents into a row.
        batch_size: rows per step and process.
        eval_batch_size: rows per batch in validation and test.
        length_bucketing: batch rows of similar length, where they are not packed.
        validation_fraction: of the training documents, if there is no validation split.
        num_workers: processes that make batches ahead of the training; by default two beside a GPU,
            and none on a CPU, whose cores they would take from it.
        seed: for choosing documents and the order of rows.
        streaming: do not hold the training documents in memory, but read them anew in each epoch,
            see [`StreamedRows`][]; validation and test are held.
        shuffle_rows: how many rows a stream holds, to draw from them in a random order.
        skip_bad_rows: leave out documents that cannot be used, and count those that are held; else
            the first is an error.

    Raises:
        ValueError: for data and options that cannot be trained on; each says what to do.
    """

    task = LanguageModelling.name
    # Whether a document may be continued in another row.
    divisible = True
    whole_numbers: ClassVar[Mapping[str, int]] = {**RowsModule.whole_numbers, "shuffle_rows": 1}
    flags: ClassVar[tuple[str, ...]] = (*RowsModule.flags, "packing", "streaming")
    replaceable: ClassVar[frozenset[str]] = RowsModule.replaceable | {"shuffle_rows"}
    # Of classification; a language model has none of it.
    without_meaning: ClassVar[frozenset[str]] = frozenset(
        {"augmentation", "drop_unlabelled", "labelled_rows", "tokens_per_batch", "views"}
    )

    def __init__(
        self,
        tokenizer: Tokenizer = None,
        teacher_tokenizer: Tokenizer = None,
        vocab_size: int = 8000,
        max_length: int = 256,
        packing: bool = True,
        batch_size: int = 16,
        eval_batch_size: int = 16,
        length_bucketing: bool = True,
        validation_fraction: float = 0.05,
        num_workers: int | None = None,
        seed: int = 0,
        streaming: bool = False,
        shuffle_rows: int = 10_000,
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
        self.vocab_size, self.packing = vocab_size, packing
        self.streaming, self.shuffle_rows = streaming, shuffle_rows
        self._documents: dict[str, int] = {}
        self._cut: dict[str, int] = {}
        self._check_options()

    def documents(self, split: str, epoch: int | None = None) -> Iterator[dict[str, Any]]:
        """The documents of a split, one after the other; needed for `streaming`.

        Args:
            split: `train`, `validation` or `test`.
            epoch: of a stream; nothing is to be held, and [`in_order_of`][] may shuffle files.
        """
        raise ValueError(
            f"{type(self).__name__} cannot be streamed: set data.streaming=false, or define "
            "`documents()`."
        )

    def texts(self, documents: Iterable[dict[str, Any]]) -> Iterator[str]:
        """What a tokenizer that is trained here learns from."""
        return (row["text"] for row in documents)

    def encoder(self, tokenizer: Any) -> Any:
        """What makes `input_ids`, `bytes` and perhaps `learnt` of some documents."""
        return DocumentEncoder(tokenizer)

    def held_splits(
        self, splits: Iterable[str], columns: Sequence[str]
    ) -> dict[str, datasets.Dataset]:
        """Those splits of `documents` that are held in memory: but for a stream, all."""
        held = {}
        for split in splits:
            if split == "train" and self.streaming:
                continue
            rows = list(self.documents(split))
            if rows or split == "train":
                held[split] = datasets.Dataset.from_dict(
                    {name: [row[name] for row in rows] for name in columns}
                )
        return held

    def bad_rows_of(self, epoch: int | None) -> BadRows:
        """What is told of documents that cannot be used; an epoch of a stream counts its own."""
        return self.bad_rows if epoch is None else BadRows(self.skip_bad_rows)

    def in_order_of(self, files: list[str], epoch: int | None) -> list[str]:
        """The files in the order of an epoch, or in their own."""
        if epoch is None:
            return files
        order = np.random.default_rng([self.seed, epoch]).permutation(len(files))
        return [files[i] for i in order]

    def setup(self, stage: str | None = None) -> None:
        """Load, tokenise and pack; a second call does nothing."""
        if self.splits:
            return
        documents = self.load()
        self.bad_rows.say({name: len(split) for name, split in documents.items()})
        if self.streaming:
            self.prepare_tokenizers(self.documents("train", 0))
            if "validation" not in documents:
                raise ValueError(
                    "A stream has no beginning to cut validation data from: name a validation "
                    "file (data.validation=FILE), or set data.streaming=false."
                )
            # Nothing is cut from the training documents, so anything may stand for them.
            documents = {**documents, "train": documents["validation"]}
        documents = all_splits(documents, self.validation_fraction, self.seed, type(self).__name__)
        if self.streaming:
            del documents["train"]
        else:
            self.prepare_tokenizers(documents["train"])
        packer = self.packer()
        for name, split in documents.items():
            self._documents[name] = len(split)
            columns = {column: list(split[column]) for column in split.column_names}
            self.splits[name] = packer.packed(columns, name)
            self._cut[name] = packer.cut
        say_cut(self._cut, self._documents, self.max_length, "documents")
        self.num_rows = None if self.streaming else len(self.splits["train"])

    def packer(self) -> RowPacker:
        """What makes rows of documents, by the tokenizers as they are after `setup`."""
        tokenizers = [self.tokenizer, self.teacher_tokenizer]
        return RowPacker(
            [self.encoder(tokenizer) for tokenizer in tokenizers if tokenizer is not None],
            self.max_length,
            self.packing,
            self.divisible,
        )

    def train_dataloader(self) -> Any:
        """Shuffled batches of the training rows."""
        if not self.streaming:
            return super().train_dataloader()
        # What is held is not sent to the processes that read.
        reader = copy.copy(self)
        reader.splits = {}
        stream = StreamedRows(
            partial(reader.documents, "train"),
            self.packer().streamed,
            self.batch_size,
            self.shuffle_rows,
            self.seed,
        )
        return StreamLoader(stream, self.num_workers)

    def training_sampler(self, lengths: np.ndarray) -> LengthGroupedBatches:
        """Which rows make a batch; packed rows have one length."""
        grouped = self.length_bucketing and not self.packing
        return LengthGroupedBatches(lengths, self.batch_size, self.seed, grouped=grouped)

    def rows_dataloader(self, plan: Plan, num_workers: int | None = None) -> DataLoader:
        """Batches of the rows that a plan names, in its order.

        As those of `RowsModule`; a view changes nothing here.

        Raises:
            ValueError: for a split or a row that there is not, and for training rows of a stream.
        """
        if self.streaming and any(split == "train" for split, _, _ in plan):
            raise ValueError(
                f"{type(self).__name__} streams its training rows, which have no numbers by which "
                "they could be asked for. Set data.streaming=false, or let teacher=caching keep "
                "the answers while a student learns."
            )
        return super().rows_dataloader(plan, num_workers)

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        return {**super().preprocessing(), "packing": self.packing}

    def counts(self) -> dict[str, int]:
        """How many documents, rows and tokens there are, and how many tokens are predicted."""
        counts: dict[str, int] = {}
        for name, rows in self.splits.items():
            tokens, predicted, _ = rows.token_counts()
            counts |= {
                f"{name} documents": self._documents[name],
                f"{name} rows": len(rows),
                f"{name} tokens": tokens,
                f"predicted {name} tokens": predicted,
            }
        return counts | counts_of_cut(self._cut, "documents") | self.bad_rows.counts()

    def prepare_tokenizers(self, train: Iterable[dict[str, Any]]) -> None:
        """Load them, or train one on the documents."""
        if self.tokenizer is None:
            texts = list(first_texts(self.texts(train), MOST_TO_LEARN_FROM))
            self.tokenizer = train_byte_pairs(texts, self.vocab_size, self.max_length)
        self.tokenizer = _checked(load_tokenizer(self.tokenizer), "tokenizer")
        if self.teacher_tokenizer is not None:
            teacher = _checked(load_tokenizer(self.teacher_tokenizer), "teacher_tokenizer")
            same = tokenizer_fingerprint(teacher) == tokenizer_fingerprint(self.tokenizer)
            self.teacher_tokenizer = None if same else teacher


def first_texts(texts: Iterable[str], most: int) -> Iterator[str]:
    """Texts until there are so many characters."""
    for text in texts:
        yield text[:most]
        most -= len(text)
        if most <= 0:
            return


def _checked(tokenizer: Any, option: str) -> Any:
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"data.{option} is a {type(tokenizer).__name__}, which does not say which characters "
            "its tokens are of. Take a fast one (tokenizer.is_fast), as most models have."
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"data.{option} has no end token, by which a model learns where a document ends; set "
            "tokenizer.eos_token and save it."
        )
    return tokenizer
