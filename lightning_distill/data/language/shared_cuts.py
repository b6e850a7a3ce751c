"""Texts cut into parts that each of several models can read whole."""

from collections.abc import Iterator, Sequence
from typing import Any


def shared_cuts(
    texts: Sequence[str], tokenizers: Sequence[Any], width: int
) -> tuple[list[str], list[bool], list[int]]:
    """Parts of texts, none of more than `width` tokens by any of the tokenizers.

    A text that fits is one part. Another is cut before a white space, where there is one in the
    second half of what fits, for tokens do not reach over it; else between any two characters.

    Args:
        texts: to be cut.
        tokenizers: fast ones of transformers.
        width: tokens of a part, with an end token.

    Returns:
        The parts, whether each is the last of its text, and which text it is of.
    """
    parts, last, numbers = [], [], []
    for number, text in enumerate(texts):
        found = list(_parts(text, tokenizers, width))
        parts += found
        last += [False] * (len(found) - 1) + [True]
        numbers += [number] * len(found)
    return parts, last, numbers


def _parts(text: str, tokenizers: Sequence[Any], width: int) -> Iterator[str]:
    while True:
        # A token is seldom of more than 30 characters: tokenising all of the rest in each turn
        # would take the square of its length.
        head = text[: 30 * width]
        end = _fitting(head, tokenizers, width, whole=len(head) == len(text))
        yield text[:end]
        text = text[end:]
        if not text:
            return


def _fitting(text: str, tokenizers: Sequence[Any], width: int, whole: bool) -> int:
    """How many characters of a text fit."""
    end = len(text)
    for tokenizer in tokenizers:
        while True:
            offsets = _offsets(text[:end], tokenizer)
            if len(offsets) + 1 <= width:
                break
            # The characters before the token that is too many; at least one fewer than before.
            fits = max(1, min(offsets[width - 1][0], end - 1))
            if end == 1:
                raise ValueError(
                    f"A single character, {text[:1]!r}, is {len(offsets)} tokens, and a row has "
                    f"{width} with an end: raise data.max_length."
                )
            end, whole = fits, False
    if whole:
        return end
    for place in range(end, end // 2, -1):
        if place < len(text) and text[place].isspace() and not text[place - 1].isspace():
            return place
    return end


def _offsets(text: str, tokenizer: Any) -> list[tuple[int, int]]:
    found = tokenizer(text, return_offsets_mapping=True, split_special_tokens=True, verbose=False)
    return list(found["offset_mapping"])
