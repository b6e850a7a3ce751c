"""Rows of documents: what several tokenizers make of them, cut or packed."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ragged import Ragged
from .document_tokens import document_tokens
from .packed_rows import following, IGNORED, PackedRows
from .packing import cut_into_rows, fit_into_rows
from .shared_cuts import shared_cuts
from .token_alignment import spans_of_documents

log = logging.getLogger("lightning_distill")

Side = dict[str, Ragged]


class RowPacker:
    """Makes rows of documents, as [`LanguageModelData`][] describes them.

    Args:
        encoders: the student's and, if the teacher has another tokenizer, the teacher's; each makes
            tokens of documents, as [`DocumentEncoder`][] does.
        max_length: of a row, in tokens.
        packing: put several documents into a row.
        divisible: a document may be continued in another row.

    Attributes:
        cut: how many documents of the split that was packed last have lost their end.
    """

    def __init__(self, encoders: Sequence[Any], max_length: int, packing: bool, divisible: bool):
        self.encoders, self.max_length, self.packing = encoders, max_length, packing
        self.tokenizers = [encoder.tokenizer for encoder in encoders]
        # A document is continued in the next row.
        self.continued = packing and divisible and len(encoders) == 1
        self.cut = 0

    def packed(self, columns: dict[str, list[Any]], name: str) -> PackedRows:
        """All rows of a split.

        Args:
            columns: of its documents.
            name: of the split, for what is said.

        Raises:
            ValueError: if nothing is to be predicted in any of them.
        """
        self.cut = 0
        rows, dropped = self._rows(self._sides(columns, keep=True), self.continued)
        documents = len(next(iter(columns.values()), []))
        if not len(rows) or not rows.token_counts()[1]:
            raise ValueError(
                f"Nothing of the {name} data is to be predicted: {documents} "
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
        self, columns: dict[str, list[Any]], left: Side | None, last: bool
    ) -> tuple[PackedRows | None, Side | None]:
        """Rows of some documents, and the tokens that do not fill one; see [`StreamedRows`][].

        Args:
            columns: of the documents.
            left: what the call before gave back.
            last: nothing follows, so nothing is to be given back.
        """
        sides = self._sides(columns, keep=False)
        if not self.continued:
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

    def _sides(self, columns: dict[str, list[Any]], keep: bool) -> list[Side]:
        """What is predicted at each token of whole documents, by each tokenizer."""
        if "text" in columns:
            texts, last = columns["text"], [True] * len(columns["text"])
            if len(self.tokenizers) > 1:
                texts, last, numbers = shared_cuts(texts, self.tokenizers, self.max_length)
                if not self.packing:
                    # Of every document the beginning.
                    first = np.unique(numbers, return_index=True)[1].tolist()
                    self.cut += sum(not last[i] for i in first)
                    texts, last = [texts[i] for i in first], [last[i] for i in first]
            columns = {"text": texts, "end": last}
        sides = []
        for encode in self.encoders:
            if keep:
                tokens = document_tokens(columns, encode)
            else:
                tokens = {name: Ragged.of(rows) for name, rows in encode(columns).items()}
            sides.append(following(tokens))
        if len(sides) > 1 and "text" in columns:
            spans = spans_of_documents(columns["text"], sides, self.tokenizers)
            for side, own in zip(sides, spans, strict=True):
                side["spans"] = own
        return sides

    def _rows(self, sides: list[Side], continued: bool) -> tuple[PackedRows, int]:
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
            lengths = np.stack([side["input_ids"].lengths for side in sides])
            self.cut += int((lengths.max(axis=0, initial=0) > self.max_length).sum())
            sides, dropped = _cut_and_useful(sides, self.max_length)
            count = len(sides[0]["input_ids"])
            if self.packing:
                lengths = np.stack([side["input_ids"].lengths for side in sides], axis=1)
                rows = fit_into_rows(lengths, self.max_length)
            else:
                rows = Ragged(np.arange(count), np.arange(count + 1))
        pads = [tokenizer.pad_token_id for tokenizer in self.tokenizers]
        width = self.max_length if self.packing else None
        teacher = sides[1] if len(sides) > 1 else None
        return PackedRows(sides[0], teacher, rows, width, (pads[0], pads[-1])), dropped


def _cut_and_useful(sides: Sequence[Side], width: int) -> tuple[list[Side], int]:
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
