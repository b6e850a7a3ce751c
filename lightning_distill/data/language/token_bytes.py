"""How many bytes of a text each of its tokens stands for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

from ...models.tokenizer import tokenizer_steps


def byte_level_sizes(tokenizer: Any) -> np.ndarray | None:
    """Bytes of every token of a byte-level tokenizer, shape (ids,); `None` for another kind.

    Special tokens stand for no text and count 0.

    Args:
        tokenizer: one of transformers.
    """
    steps = tokenizer_steps(tokenizer)
    if steps is None or not _ends_in_bytes(steps.get("decoder")):
        return None
    bytes_ = set(ByteLevel.alphabet())
    vocabulary = tokenizer.get_vocab()
    sizes = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
    for token, number in vocabulary.items():
        # A character stands for a byte, but in tokens that were added as text.
        sizes[number] = len(token) if bytes_.issuperset(token) else len(token.encode())
    sizes[special_ids(tokenizer)] = 0
    return sizes


def _ends_in_bytes(decoder: Any) -> bool:
    if not isinstance(decoder, dict):
        return False
    return decoder.get("type") == "ByteLevel" or any(
        _ends_in_bytes(part) for part in decoder.get("decoders", [])
    )


def special_ids(tokenizer: Any) -> list[int]:
    """Ids of the tokens that stand for no text, such as an end, or the beginning of a turn."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return sorted({*tokenizer.all_special_ids, *(i for i, t in added.items() if t.special)})


def sizes_by_offsets(text: str, offsets: Sequence[tuple[int, int]] | np.ndarray) -> np.ndarray:
    """Bytes of every token by the characters that it was made of, shape (tokens,).

    A character that several tokens share is counted with the first of them. What no token covers,
    such as a space that the tokenizer drops, is counted with the token after it, and with the last
    one at the end: the sum is the length of the text in UTF-8.

    Args:
        text: what was tokenised.
        offsets: of each token the first character and the one behind its last.
    """
    if not len(offsets):
        return np.zeros(0, dtype=np.int64)
    ends = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)[:, 1].copy()
    ends[-1] = len(text)
    reached = np.maximum.accumulate(ends)
    if not text.isascii():
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        widths = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
        reached = np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])[reached]
    return np.diff(reached, prepend=0)
