"""Tokens of documents for causal language models: what their data modules share."""

import copy
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import datasets
import lightning as L
import numpy as np
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ..all_splits import all_splits
from ..length_grouped import EvenRows, LengthGroupedBatches, PlannedBatches
from ..load_tokenizer import load_tokenizer
from ..ragged import Ragged
from ..row_loader import check_plan, Plan, row_loader
from ..text.rows import Splits
from ..tokenizer_fingerprint import tokenizer_fingerprint
from .byte_pairs import train_byte_pairs
from .document_tokens import document_tokens, DocumentEncoder
from .packed_rows import following, IGNORED, PackedRows
from .packing import cut_into_rows, fit_into_rows
from .shared_cuts import shared_cuts
from .streamed_rows import StreamedRows, StreamLoader
from .token_alignment import spans_of_documents

log = logging.getLogger("lightning_distill")

# What a tokenizer that is trained here learns from at most, in characters.
MOST_TO_LEARN_FROM = 64_000_000
# Of classification; a language model has none of it.
WITHOUT_MEANING = ("augmentation", "drop_unlabelled", "labelled_rows", "tokens_per_batch", "views")
Tokenizer = str | PreTrainedTokenizerBase | None


class LanguageModelData(L.LightningDataModule):
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

    Raises:
        ValueError: for data and options that cannot be trained on; each says what to do.
    """

    task = "language_modelling"
    num_labels = None
    # Whether a document may be continued in another row.
    divisible = True

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
    ):
        super().__init__()
        self.tokenizer, self.teacher_tokenizer = tokenizer, teacher_tokenizer
        self.vocab_size, self.max_length, self.packing = vocab_size, max_length, packing
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.length_bucketing, self.validation_fraction = length_bucketing, validation_fraction
        self.num_workers, self.seed = num_workers, seed
        self.streaming, self.shuffle_rows = streaming, shuffle_rows
        self.num_rows: int | None = None
        self.splits: dict[str, PackedRows] = {}
        self._documents: dict[str, int] = {}
        self._encoders: list[Any] = []
        self._check_options()

    def load(self) -> dict[str, datasets.Dataset]:
        """The splits `train` and, if there are any, `validation` and `test`; column `text`."""
        raise TypeError(f"{type(self).__name__} must define `load()`.")

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

    def in_order_of(self, files: list[str], epoch: int | None) -> list[str]:
        """The files in the order of an epoch, or in their own."""
        if epoch is None:
            return files
        order = np.random.default_rng([self.seed, epoch]).permutation(len(files))
        return [files[i] for i in order]

    def replace(self, **changes: Any) -> "LanguageModelData":
        """The same rows under other options, such as `batch_size=8`; nothing is reread.

        Options of classification that a language model has no use for may be given and change
        nothing.
        """
        allowed = {"batch_size", "eval_batch_size", "length_bucketing", "num_workers", "seed"}
        allowed |= {"shuffle_rows", *WITHOUT_MEANING}
        if not changes.keys() <= allowed:
            raise ValueError(
                f"`replace` changes {', '.join(sorted(allowed))}, got {', '.join(changes)}."
            )
        changed = copy.copy(self)
        for name, value in changes.items():
            if name not in WITHOUT_MEANING:
                setattr(changed, name, value)
        changed._check_options()
        return changed

    def setup(self, stage: str | None = None) -> None:
        """Load, tokenise and pack; a second call does nothing."""
        if self.splits:
            return
        documents = self.load()
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
        self._encoders = [self.encoder(tokenizer) for tokenizer in self._tokenizers()]
        for name, split in documents.items():
            self._documents[name] = len(split)
            columns = {column: list(split[column]) for column in split.column_names}
            self.splits[name] = self._packed(columns, name)
        self.num_rows = None if self.streaming else len(self.splits["train"])

    def train_dataloader(self) -> Any:
        """Shuffled batches of the training rows."""
        if self.streaming:
            # What is held is not sent to the processes that read.
            reader = copy.copy(self)
            reader.splits = {}
            stream = StreamedRows(
                partial(reader.documents, "train"),
                reader.streamed,
                self.batch_size,
                self.shuffle_rows,
                self.seed,
            )
            return StreamLoader(stream, self.num_workers)
        rows = self.splits["train"]
        grouped = self.length_bucketing and not self.packing
        sampler = LengthGroupedBatches(rows.lengths, self.batch_size, self.seed, grouped=grouped)
        return self._loader(rows, sampler)

    def val_dataloader(self) -> DataLoader:
        """All validation rows, once."""
        rows = self.splits["validation"]
        return self._loader(rows, EvenRows(rows.lengths, self.eval_batch_size))

    def test_dataloader(self) -> DataLoader:
        """All test rows, once."""
        rows = self.splits["test"]
        return self._loader(rows, EvenRows(rows.lengths, self.eval_batch_size))

    def row_lengths(self) -> dict[str, np.ndarray]:
        """Tokens of every row of each split, shape (rows,), as the models are given them."""
        return {name: rows.lengths for name, rows in self.splits.items()}

    def rows_dataloader(self, plan: Plan, num_workers: int | None = None) -> DataLoader:
        """Batches of the rows that a plan names, in its order.

        Each is what training or evaluation would give of these rows, and `row` holds their numbers.
        Lightning does not shard it: on several ranks, each makes a loader of its own plan.

        Args:
            plan: for each batch the split (`train`, `validation` or `test`), row numbers, and a
                view, which changes nothing here.
            num_workers: processes that make batches; those of the data module by default.

        Raises:
            ValueError: for a split or a row that there is not.
        """
        if self.streaming and any(split == "train" for split, _, _ in plan):
            raise ValueError(
                f"{type(self).__name__} streams its training rows, which have no numbers by which "
                "they could be asked for. Set data.streaming=false, or let teacher=caching keep "
                "the answers while a student learns."
            )
        check_plan(plan, self.splits)
        splits = Splits(self.splits)
        return self._loader(splits, PlannedBatches(plan), num_workers)

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        teacher = self.teacher_tokenizer
        return {
            "max_length": self.max_length,
            "packing": self.packing,
            "student_tokenizer": tokenizer_fingerprint(self.tokenizer),
            # The same where the teacher has no tokenizer of its own.
            "teacher_tokenizer": tokenizer_fingerprint(
                self.tokenizer if teacher is None else teacher
            ),
        }

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
        return counts

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all tokens and labels, and of the tokenizer's vocabulary."""
        assert isinstance(self.tokenizer, PreTrainedTokenizerBase)
        digest = hashlib.sha256(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode())
        for name, rows in sorted(self.splits.items()):
            digest.update(name.encode())
            # In one form, whatever types the rows are held in.
            for tokens in (*rows.student.values(), rows.rows):
                digest.update(tokens.offsets.astype("<i8").tobytes())
                digest.update(tokens.values.astype("<i4").tobytes())
        return digest.hexdigest()

    # Checks.

    def _check_options(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("eval_batch_size", 1),
            ("max_length", 2),
            ("num_workers", 0),
            ("seed", 0),
            ("shuffle_rows", 1),
        ):
            value = getattr(self, name)
            if value is None and name == "num_workers":
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"`{name}` must be a whole number, got {value!r}.")
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}.")
        for name in ("packing", "length_bucketing", "streaming"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` must be true or false, got {getattr(self, name)!r}.")
        fraction = self.validation_fraction
        if not isinstance(fraction, int | float) or not 0 < fraction < 1:
            raise ValueError(f"`validation_fraction` lies between 0 and 1, got {fraction!r}.")

    # Tokens.

    def prepare_tokenizers(self, train: Iterable[dict[str, Any]]) -> None:
        """Load them, or train one on the documents."""
        if self.tokenizer is None:
            texts = list(_first(self.texts(train), MOST_TO_LEARN_FROM))
            self.tokenizer = train_byte_pairs(texts, self.vocab_size, self.max_length)
        self.tokenizer = _checked(load_tokenizer(self.tokenizer), "tokenizer")
        if self.teacher_tokenizer is not None:
            teacher = _checked(load_tokenizer(self.teacher_tokenizer), "teacher_tokenizer")
            same = tokenizer_fingerprint(teacher) == tokenizer_fingerprint(self.tokenizer)
            self.teacher_tokenizer = None if same else teacher

    def _tokenizers(self) -> list[Any]:
        both = [self.tokenizer, self.teacher_tokenizer]
        return [tokenizer for tokenizer in both if tokenizer is not None]

    def _sides(self, columns: dict[str, list[Any]], keep: bool) -> list[dict[str, Ragged]]:
        """What is predicted at each token of whole documents, by each tokenizer."""
        tokenizers = self._tokenizers()
        if "text" in columns:
            texts, last = columns["text"], [True] * len(columns["text"])
            if len(tokenizers) > 1:
                texts, last, numbers = shared_cuts(texts, tokenizers, self.max_length)
                if not self.packing:
                    # Of every document the beginning.
                    first = np.unique(numbers, return_index=True)[1].tolist()
                    texts, last = [texts[i] for i in first], [last[i] for i in first]
            columns = {"text": texts, "end": last}
        sides = []
        for encode in self._encoders:
            if keep:
                tokens = document_tokens(columns, encode)
            else:
                tokens = {name: Ragged.of(rows) for name, rows in encode(columns).items()}
            sides.append(following(tokens))
        if len(sides) > 1 and "text" in columns:
            spans = spans_of_documents(columns["text"], sides, tokenizers)
            for side, own in zip(sides, spans, strict=True):
                side["spans"] = own
        return sides

    def _rows(self, sides: list[dict[str, Ragged]], continued: bool) -> tuple[PackedRows, int]:
        """Rows of whole documents, and how many of these have nothing to predict.

        Args:
            sides: by each tokenizer.
            continued: a document may be continued in the next row.
        """
        dropped = 0
        if continued:
            pieces, rows = cut_into_rows(sides[0]["input_ids"].offsets, self.max_length)
            sides = [{k: Ragged(v.values, pieces) for k, v in sides[0].items()}]
        else:
            sides, dropped = _cut_and_useful(sides, self.max_length)
            count = len(sides[0]["input_ids"])
            if self.packing:
                lengths = np.stack([side["input_ids"].lengths for side in sides], axis=1)
                rows = fit_into_rows(lengths, self.max_length)
            else:
                rows = Ragged(np.arange(count), np.arange(count + 1))
        pads = [tokenizer.pad_token_id for tokenizer in self._tokenizers()]
        width = self.max_length if self.packing else None
        teacher = sides[1] if len(sides) > 1 else None
        return PackedRows(sides[0], teacher, rows, width, (pads[0], pads[-1])), dropped

    @property
    def _continued(self) -> bool:
        return self.packing and self.divisible and self.teacher_tokenizer is None

    def _packed(self, columns: dict[str, list[Any]], name: str) -> PackedRows:
        rows, dropped = self._rows(self._sides(columns, keep=True), self._continued)
        if not len(rows) or not rows.token_counts()[1]:
            raise ValueError(
                f"Nothing of the {name} data is to be predicted: {self._documents[name]} "
                "documents, all of them empty or without an answer in the first "
                f"{self.max_length} tokens. Bring other documents, or raise data.max_length."
            )
        if dropped:
            log.warning(
                "%d of %d documents of the %s data have nothing to predict within %d tokens "
                "(data.max_length) and are left out",
                dropped,
                dropped + len(rows.student["input_ids"]),
                name,
                self.max_length,
            )
        return rows

    def streamed(
        self, columns: dict[str, list[Any]], left: dict[str, Ragged] | None, last: bool
    ) -> tuple[PackedRows | None, dict[str, Ragged] | None]:
        """Rows of some documents, and the tokens that do not fill one; see [`StreamedRows`][].

        Args:
            columns: of the documents.
            left: what the call before gave back.
            last: nothing follows, so nothing is to be given back.
        """
        sides = self._sides(columns, keep=False)
        if not self._continued:
            return self._rows(sides, False)[0], None
        side = sides[0]
        if left is not None:
            side = {name: left[name].followed_by(rows) for name, rows in side.items()}
        offsets = side["input_ids"].offsets
        full = int(offsets[-1]) // self.max_length * self.max_length
        over = None
        if not last and full < offsets[-1]:
            # From the last full row on: the rest of a document, and those behind it.
            rest = np.append(full, offsets[offsets > full])
            over = {k: Ragged(v.values[full:].copy(), rest - full) for k, v in side.items()}
            kept = np.append(offsets[offsets < full], full)
            side = {k: Ragged(v.values[:full], kept) for k, v in side.items()}
        return (self._rows([side], True)[0] if full or last else None), over

    def _loader(self, rows: Any, sampler: Any, num_workers: int | None = None) -> DataLoader:
        num_workers = self.num_workers if num_workers is None else num_workers
        return row_loader(rows, sampler, None, num_workers)


def _cut_and_useful(
    sides: Sequence[dict[str, Ragged]], width: int
) -> tuple[list[dict[str, Ragged]], int]:
    """The first `width` tokens of documents in which every model has something to predict."""
    cut = [{k: _heads(v, width) for k, v in side.items()} for side in sides]
    useful = np.logical_and.reduce([_any(side["labels"]) for side in cut])
    kept = np.flatnonzero(useful)
    dropped = len(useful) - len(kept)
    if dropped:
        cut = [{k: v.take(kept) for k, v in side.items()} for side in cut]
    return cut, dropped


def _heads(rows: Ragged, width: int) -> Ragged:
    lengths = rows.lengths
    places = np.arange(len(rows.values)) - np.repeat(rows.offsets[:-1], lengths)
    return Ragged.split(rows.values[places < width], np.minimum(lengths, width))


def _any(labels: Ragged) -> np.ndarray:
    """In which rows something is to be predicted."""
    total = np.concatenate([[0], np.cumsum(labels.values != IGNORED)])
    return np.diff(total[labels.offsets]) > 0


def _first(texts: Iterable[str], most: int) -> Iterator[str]:
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
