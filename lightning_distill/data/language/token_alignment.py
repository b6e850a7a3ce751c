"""Which tokens of two tokenizers stand for the same stretch of text.

Both tokenisations of a text are cut where neither has a token that goes across: the stretches
between two cuts are *spans*. They are the smallest groups of tokens that cover the same text, often
one token on either side.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ...models.tokenizer import tokenizer_steps
from ..ragged import Ragged

UNLABELLED = -100
NO_SPAN = -1
# No whitespace of Unicode lies above U+3000.
WHITESPACE = np.array([c for c in range(0x3001) if chr(c).isspace()])


@dataclass(frozen=True)
class TokenizedTexts:
    """What one tokenizer makes of some texts; one entry per text in each list.

    Attributes:
        ids: of the tokens, `(tokens,)`.
        offsets: where each token begins and ends in its text, in characters, `(tokens, 2)`. Tokens
            that share a character (bytes of one letter) both have all of it.
        special: which tokens stand for no text, `(tokens,)`: special tokens and unknown words.
        labels: the token that follows each position, -100 where nothing is to be predicted,
            `(tokens,)`.
    """

    ids: list[np.ndarray]
    offsets: list[np.ndarray]
    special: list[np.ndarray]
    labels: list[np.ndarray]


class OffsetTokenizer:
    """A tokenizer that also says where each of its tokens lies in the text.

    Spaces belong to the token that has them, also where the tokenizer is set to leave them out of
    its offsets (`trim_offsets`).

    Args:
        tokenizer: a fast one of transformers; it is not changed.

    Raises:
        ValueError: for a tokenizer that does not know where its tokens lie.
    """

    def __init__(self, tokenizer: Any):
        steps = tokenizer_steps(tokenizer)
        if steps is None:
            raise ValueError(
                f"{type(tokenizer).__name__} does not say where its tokens lie in a text, which is "
                "needed to align them with those of another tokenizer. Load a fast tokenizer "
                "(AutoTokenizer, of a folder with a tokenizer.json)."
            )
        steps["truncation"] = steps["padding"] = None
        _set_everywhere(steps.get("post_processor"), "trim_offsets", False)
        self.backend = Tokenizer.from_str(json.dumps(steps))
        added = tokenizer.added_tokens_decoder.items()
        special = {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}
        self.special = np.array(sorted(special), dtype=np.int64)

    def __call__(self, texts: Sequence[str], max_length: int | None = None) -> TokenizedTexts:
        """Ids, offsets and next-token labels, with the tokenizer's own special tokens.

        Args:
            texts: one per row.
            max_length: rows are cut after so many tokens.
        """
        ids, offsets = [], []
        for encoding in self.backend.encode_batch(list(texts)):
            ids.append(np.array(encoding.ids[:max_length], dtype=np.int64))
            offsets.append(np.array(encoding.offsets[:max_length], dtype=np.int64).reshape(-1, 2))
        labels = [np.append(row[1:], UNLABELLED)[: len(row)] for row in ids]
        return TokenizedTexts(ids, offsets, [np.isin(row, self.special) for row in ids], labels)


def _set_everywhere(told: Any, name: str, value: Any) -> None:
    if isinstance(told, dict):
        if name in told:
            told[name] = value
        told = list(told.values())
    if isinstance(told, list):
        for item in told:
            _set_everywhere(item, name, value)


def token_spans(
    texts: Sequence[str], student: TokenizedTexts, teacher: TokenizedTexts
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per row and position, the number of the span of the token that this position predicts.

    Numbers go from 0 in each row, and are the same on both sides. They stand where labels stand,
    one place before their token. -1 is where nothing is predicted, where the token is special, or
    where its span cannot be compared: the other side has no token in it, not all of its tokens are
    predicted (the first of a row, a prompt), or one of them is special.

    A space that one side writes with its word and the other as a token of its own is in the word's
    span; whitespace that the other side does not write at all has none. A word with its space is
    the counterpart of the word of a tokenizer that drops spaces.

    Args:
        texts: what was tokenised.
        student: what the student's tokenizer made of them; cut rows are fine.
        teacher: what the teacher's tokenizer made of them.

    Returns:
        student's and teacher's spans, each a list of `(tokens,)` int64.

    Raises:
        ValueError: if these are not the same number of rows, or offsets lie outside their text.
    """
    if not texts:
        return [], []
    sides = [_flat(texts, side) for side in (student, teacher)]
    written = _written(texts)
    # A place where a token begins or ends is cut if no token of either side goes across it.
    is_cut = np.zeros(len(written), dtype=bool)
    for side in sides:
        is_cut[side.start] = is_cut[side.end] = True
    for side in sides:
        wide = side.end > side.start
        began, ended = (
            np.bincount(x[wide], minlength=len(written)).cumsum() for x in (side.start, side.end)
        )
        is_cut[1:] &= began[:-1] == ended[1:]
    cuts = np.flatnonzero(is_cut)
    regions = [is_cut.cumsum()[side.start] - 1 for side in sides]
    comparable = np.ones(len(cuts), dtype=bool)
    extents = []
    for side, region in zip(sides, regions, strict=True):
        there = region[side.there]
        comparable &= np.bincount(there, minlength=len(cuts)) > 0
        comparable[region[side.there & ~side.predicted]] = False
        # How much text lies before the first and the last character, spaces left out.
        first, last = np.full(len(cuts), len(written)), np.zeros(len(cuts), dtype=np.int64)
        np.minimum.at(first, there, written[side.start[side.there]])
        np.maximum.at(last, there, written[side.end[side.there]])
        extents.append((first, last))
    # Where a row is cut, or a tokenizer drops characters, one side has only a part of the span.
    for mine, others in zip(*extents, strict=True):
        comparable &= mine == others
    row_of_cut = np.searchsorted(sides[0].begin, cuts, side="right") - 1
    before = np.append(0, np.cumsum(comparable))
    number = before[:-1] - before[np.searchsorted(cuts, sides[0].begin, side="left")][row_of_cut]
    number[~comparable] = NO_SPAN
    found = []
    for side, region in zip(sides, regions, strict=True):
        of_token = np.where(side.there, number[region], NO_SPAN) if len(cuts) else region
        rows = np.split(of_token, np.cumsum(side.lengths)[:-1])
        found.append([np.append(row[1:], NO_SPAN)[: len(row)].astype(np.int64) for row in rows])
    return found[0], found[1]


def spans_of_documents(
    texts: Sequence[str], sides: Sequence[Mapping[str, Ragged]], tokenizers: Sequence[Any]
) -> list[Ragged]:
    """[`token_spans`][] of texts that are tokenised already, of the student and of the teacher.

    A text of which the tokens are not those that its tokenizer gives here has no spans.

    Args:
        texts: one per row.
        sides: `input_ids` and `labels` by each tokenizer; an end token may stand behind a row.
        tokenizers: fast ones of transformers.
    """
    found = []
    for side, tokenizer in zip(sides, tokenizers, strict=True):
        aligned = OffsetTokenizer(tokenizer)
        # What looks like a special token in a document is text.
        aligned.backend.encode_special_tokens = True
        made = aligned(texts)
        for i, (text, own) in enumerate(zip(texts, side["input_ids"], strict=True)):
            if len(own) == len(made.ids[i]) + 1:
                made.ids[i] = np.append(made.ids[i], own[-1])
                made.offsets[i] = np.append(made.offsets[i], [[len(text)] * 2], axis=0)
                made.special[i] = np.append(made.special[i], True)
            if not np.array_equal(made.ids[i], own):
                made.offsets[i] = np.full((len(own), 2), len(text))
                made.special[i] = np.ones(len(own), dtype=bool)
            made.labels[i] = side["labels"][i]
        found.append(made)
    return [Ragged.of(rows) for rows in token_spans(texts, *found)]


@dataclass(frozen=True)
class _Flat:
    """The tokens of all rows after each other, at places that no two rows share."""

    begin: np.ndarray
    start: np.ndarray
    end: np.ndarray
    predicted: np.ndarray
    there: np.ndarray
    lengths: list[int]


def _flat(texts: Sequence[str], side: TokenizedTexts) -> _Flat:
    if not len(side.offsets) == len(side.labels) == len(side.special) == len(texts):
        raise ValueError(
            f"Each text must be one row, got {len(texts)} texts and {len(side.offsets)} rows."
        )
    sizes = np.array([len(text) + 1 for text in texts], dtype=np.int64)
    begin = np.cumsum(sizes) - sizes
    lengths = [len(row) for row in side.offsets]
    empty = np.zeros((0, 2), dtype=np.int64)
    offsets = np.concatenate([empty, *side.offsets])
    of_row = np.repeat(np.arange(len(texts)), lengths)
    outside = (offsets < 0).any(1) | (offsets >= sizes[of_row, None]).any(1)
    if outside.any():
        row = int(of_row[outside.argmax()])
        raise ValueError(
            f"A token of row {row} ends at {int(offsets[outside.argmax(), 1])}, and its text has "
            f"{len(texts[row])} characters: these are the offsets of another text."
        )
    special = np.concatenate([np.zeros(0, dtype=bool), *side.special])
    # The label before a token says whether it is predicted; nothing predicts the first.
    labels = [np.append(UNLABELLED, row)[: len(row)] for row in side.labels]
    labelled = np.concatenate([np.zeros(0, dtype=np.int64), *labels]) != UNLABELLED
    start, end = offsets.T + begin[of_row]
    # Special tokens that were put around the text lie nowhere in it.
    there = ~special | (end > start)
    return _Flat(begin, start, end, labelled & ~special, there, lengths)


def _written(texts: Sequence[str]) -> np.ndarray:
    """Of every place, how many characters that are no whitespace lie before it."""
    # A place more per text, which no character has: the end of one is not the begin of the next.
    codes = np.frombuffer(
        "".join(f"{t}\0" for t in texts).encode("utf-32-le", "surrogatepass"), "<u4"
    )
    return np.append(0, np.cumsum(~np.isin(codes, WHITESPACE)))


class TokenAlignment:
    """Makes of texts a batch for two causal language models that have different tokenizers.

    Args:
        student_tokenizer: a fast tokenizer of transformers.
        teacher_tokenizer: the same, another one.
        max_length: the student's rows are cut after so many tokens.
        teacher_max_length: the teacher's.

    Raises:
        ValueError: for a tokenizer that does not know where its tokens lie.
    """

    def __init__(
        self,
        student_tokenizer: Any,
        teacher_tokenizer: Any,
        max_length: int | None = None,
        teacher_max_length: int | None = None,
    ):
        self.tokenizers = [OffsetTokenizer(t) for t in (student_tokenizer, teacher_tokenizer)]
        # What stands in the padding is masked and has no label.
        self.padding = [t.pad_token_id or 0 for t in (student_tokenizer, teacher_tokenizer)]
        self.max_lengths = [max_length, teacher_max_length]

    def __call__(self, texts: Sequence[str]) -> dict[str, Any]:
        """The batch.

        Args:
            texts: one per row.

        Returns:
            `input_ids`, `attention_mask`, `labels` (the token that follows, -100 where there is
            none) and `spans` (see [`token_spans`][]), all `(rows, tokens)`, padded on the right;
            and the same of the teacher under `teacher`.
        """
        student, teacher = (
            tokenizer(texts, longest)
            for tokenizer, longest in zip(self.tokenizers, self.max_lengths, strict=True)
        )
        spans = token_spans(texts, student, teacher)
        batch: dict[str, Any] = _padded(student, spans[0], self.padding[0])
        return {**batch, "teacher": _padded(teacher, spans[1], self.padding[1])}


def _padded(side: TokenizedTexts, spans: list[np.ndarray], padding: int) -> dict[str, Tensor]:
    def padded(rows: list[np.ndarray], value: int) -> Tensor:
        tensors = [torch.from_numpy(row) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

    return {
        "input_ids": padded(side.ids, padding),
        "attention_mask": padded([np.ones_like(row) for row in side.ids], 0),
        "labels": padded(side.labels, UNLABELLED),
        "spans": padded(spans, NO_SPAN),
    }
