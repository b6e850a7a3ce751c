"""Rows of documents for masked language models, and how some of them become a batch."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..draw import Draw
from ..ragged import Ragged
from .document_tokens import document_tokens
from .token_masks import IGNORED, TokenMasks

log = logging.getLogger("lightning_distill")

# What takes the seed's place where rows are evaluated: their masks are the same in every run.
EVALUATED = "evaluated"


class MaskedRows(Dataset):
    """Rows that each hold a piece of one document; indexed by row numbers, it gives a batch.

    Args:
        tokens: `input_ids` of every row with special tokens, and `words`, the number of the word
            that each token is of.
        masks: draws what is hidden.
        pad: id of the pad token.
        seed: of the masks; `None` has one fixed view of every row, whatever is asked.

    Attributes:
        student: the tokens as they are before anything is masked.
    """

    def __init__(
        self, tokens: dict[str, Ragged], masks: TokenMasks, pad: int, seed: int | None = None
    ):
        self.student, self.masks, self.pad, self.seed = tokens, masks, pad, seed

    def __len__(self) -> int:
        return len(self.student["input_ids"])

    @property
    def lengths(self) -> np.ndarray:
        """Of every row in tokens, shape (rows,)."""
        return self.student["input_ids"].lengths

    def seeded(self, seed: int) -> "MaskedRows":
        """The same rows, whose masks change with the view under which they are drawn."""
        changed = copy.copy(self)
        changed.seed = seed
        return changed

    def __getitem__(self, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        asked = np.asarray(chosen, dtype=np.int64)
        numbers = np.where(asked < 0, -asked - 1, asked)
        view = chosen.view if isinstance(chosen, Draw) else None
        # Keyed by what the row is, and not by who draws it when.
        fixed = self.seed is None or view is None
        key: tuple[Any, Any] = (EVALUATED, 0) if fixed else (self.seed, view)
        ids, words = (self.student[name].take(numbers) for name in ("input_ids", "words"))
        given, labels = [], []
        for number, row, own in zip(numbers.tolist(), ids, words, strict=True):
            generator = self.masks.generator(key[0], number, key[1])
            hidden, label = self.masks(row.astype(np.int64), own, generator)
            given.append(hidden)
            labels.append(label)
        ones = Ragged(np.ones(len(ids.values), dtype=np.int64), ids.offsets)
        return {
            "input_ids": Ragged.of(given).padded(self.pad),
            "attention_mask": ones.padded(0),
            "labels": Ragged.of(labels).padded(IGNORED),
            "row": torch.from_numpy(np.where(asked < 0, -1, numbers)),
        }

    def contents(self) -> Iterator[bytes]:
        """All tokens, their words, and how they are masked."""
        yield repr(self.masks).encode()
        for tokens in self.student.values():
            yield from tokens.contents()


class WordEncoder:
    """Makes tokens of some texts, without special ones, and the words that they are of.

    What looks like a special token in a text is text.

    Args:
        tokenizer: a fast one of transformers.
    """

    about = "texts and their words"

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[np.ndarray]]:
        """`input_ids` and `words` of each document.

        Args:
            batch: a list `text`.
        """
        found = self.tokenizer(
            list(batch["text"]),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        ids = [np.asarray(row, dtype=np.int32) for row in found["input_ids"]]
        words = [
            np.array([-1 if w is None else w for w in found.word_ids(i)], dtype=np.int32)
            for i in range(len(ids))
        ]
        return {"input_ids": ids, "words": words}


class MaskedRowMaker:
    """Makes rows of documents, as [`MaskedLanguageData`][] describes them.

    Args:
        encoder: makes tokens of documents, as [`WordEncoder`][] does.
        max_length: of a row, in tokens, special ones included.
        masks: draws what is hidden; it knows the tokenizer.

    Attributes:
        cut: how many documents have lost their end: none, for what does not fit is in further rows.

    Raises:
        ValueError: if there is no room beside the special tokens.
    """

    cut = 0

    def __init__(self, encoder: Any, max_length: int, masks: TokenMasks):
        self.encoder, self.masks = encoder, masks
        self.before, self.after = _around(encoder.tokenizer)
        self.room = max_length - len(self.before) - len(self.after)
        if self.room < 1:
            raise ValueError(
                f"data.max_length is {max_length}, of which {len(self.before) + len(self.after)} "
                "are special tokens: raise it."
            )

    def packed(self, columns: dict[str, list[Any]], name: str) -> MaskedRows:
        """All rows of a split.

        Args:
            columns: of its documents.
            name: of the split, for what is said.

        Raises:
            ValueError: if no row has a token that could be masked.
        """
        tokens = document_tokens({"text": columns["text"]}, self.encoder)
        lengths = tokens["input_ids"].lengths
        pieces = _even_pieces(lengths, self.room)
        rows = {key: Ragged.split(value.values, pieces) for key, value in tokens.items()}
        able = self.masks.maskable(rows["input_ids"].values)
        total = np.concatenate([[0], np.cumsum(able)])
        useful = np.flatnonzero(np.diff(total[rows["input_ids"].offsets]))
        if not len(useful):
            raise ValueError(
                f"Nothing of the {name} data can be masked: {len(lengths)} documents, all of them "
                "empty or of tokens that the tokenizer does not know. Bring other documents, or "
                "another tokenizer."
            )
        dropped = len(pieces) - len(useful)
        if dropped:
            log.warning(
                "%d of %d rows of the %s data have no token that could be masked and are left out",
                dropped,
                len(pieces),
                name,
            )
            rows = {key: value.take(useful) for key, value in rows.items()}
        rows["input_ids"] = _between(rows["input_ids"], self.before, self.after)
        none = [[-1] * len(side) for side in (self.before, self.after)]
        rows["words"] = _between(rows["words"], *none)
        return MaskedRows(rows, self.masks, self.encoder.tokenizer.pad_token_id)


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before a text, and behind it."""
    found = tokenizer("a", return_special_tokens_mask=True)
    ids, special = found["input_ids"], found["special_tokens_mask"]
    if 0 not in special:
        # The letter itself is unknown, which some tokenizers call special.
        bare = len(tokenizer("a", add_special_tokens=False)["input_ids"])
        first = (len(ids) - bare + 1) // 2
        return list(ids[:first]), list(ids[first + bare :])
    first, last = special.index(0), len(special) - special[::-1].index(0)
    return list(ids[:first]), list(ids[last:])


def _even_pieces(lengths: np.ndarray, room: int) -> np.ndarray:
    """The lengths of the fewest pieces of each document that fit; they differ by one at most."""
    counts = -(-lengths // room)
    of = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    ends = [(number + i) * lengths[of] // np.maximum(counts[of], 1) for i in (0, 1)]
    return ends[1] - ends[0]


def _between(rows: Ragged, before: list[int], after: list[int]) -> Ragged:
    """Rows with something before each and behind it."""
    lengths = rows.lengths
    made = Ragged.split(np.zeros(0), lengths + len(before) + len(after))
    made.values = np.zeros(made.offsets[-1], dtype=np.int32)
    inner = np.arange(len(rows.values)) + np.repeat(
        made.offsets[:-1] + len(before) - rows.offsets[:-1], lengths
    )
    made.values[inner] = rows.values
    for i, value in enumerate(before):
        made.values[made.offsets[:-1] + i] = value
    for i, value in enumerate(after):
        made.values[made.offsets[1:] - len(after) + i] = value
    return made
