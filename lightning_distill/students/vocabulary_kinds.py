"""The kinds of tokenizers whose vocabulary can be cut, and what a token needs to stay as it is."""

from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any

BYTES = frozenset(f"<0x{i:02X}>" for i in range(256))


class WordPiece:
    """Takes the longest token that fits, from the left: any subset of tokens is a vocabulary.

    Args:
        model: the part `model` of a `tokenizer.json`.
    """

    def __init__(self, model: Mapping[str, Any]):
        self.model = model
        self.ids: dict[str, int] = self._ids()

    def _ids(self) -> dict[str, int]:
        return dict(self.model["vocab"])

    def letters(self, token: str) -> list[str]:
        """The tokens of one character that stand for the same text."""
        prefix = self.model["continuing_subword_prefix"]
        inner = token.startswith(prefix)
        body = token.removeprefix(prefix) if inner else token
        return [
            letter if i == 0 and not inner else prefix + letter for i, letter in enumerate(body)
        ]

    def always(self) -> Iterator[str]:
        """What no text can do without: single characters, and tokens that these cannot replace."""
        for token in self.ids:
            letters = self.letters(token)
            if len(letters) == 1 or not all(letter in self.ids for letter in letters):
                yield token
        unknown = self.model.get("unk_token")
        if unknown in self.ids:
            yield unknown

    def parts(self, token: str) -> Iterator[str]:
        """Further tokens without which this one would not be found."""
        yield from ()

    def cut(self, tokens: Collection[str]) -> dict[str, Any]:
        """The part `model` with these tokens alone, numbered in the order that they had."""
        order = sorted(tokens, key=self.ids.__getitem__)
        return {**self.model, "vocab": {token: i for i, token in enumerate(order)}}


class BytePairs(WordPiece):
    """Joins neighbours in the order of its merges: what a token is joined of must stay too."""

    def __init__(self, model: Mapping[str, Any]):
        super().__init__(model)
        self.merges = [
            tuple(pair.split(" ", 1) if isinstance(pair, str) else pair) for pair in model["merges"]
        ]
        self.ranks = {pair: i for i, pair in enumerate(self.merges)}
        self.prefix = model.get("continuing_subword_prefix") or ""
        self.suffix = model.get("end_of_word_suffix") or ""

    def letters(self, token: str) -> list[str]:
        """The tokens of one character that stand for the same text."""
        inner = bool(self.prefix) and token.startswith(self.prefix)
        ends = bool(self.suffix) and token.endswith(self.suffix) and token != self.suffix
        body = token.removeprefix(self.prefix) if inner else token
        letters = list(body.removesuffix(self.suffix) if ends else body)
        for i in range(0 if inner else 1, len(letters)):
            letters[i] = self.prefix + letters[i]
        if ends:
            letters[-1] += self.suffix
        return letters

    def always(self) -> Iterator[str]:
        """What no text can do without; bytes, where they stand for what is unknown."""
        if not (self.model.get("byte_fallback") and self.ids.keys() >= BYTES):
            yield from super().always()
            return
        yield from BYTES
        yield from (token for token in self.ids if len(self.letters(token)) == 1)

    def parts(self, token: str) -> Iterator[str]:
        """All that is joined on the way to a token."""
        pieces = self.letters(token)
        while len(pieces) > 1:
            pairs = list(pairwise(pieces))
            rank, at = min((self.ranks.get(p, len(self.ranks)), i) for i, p in enumerate(pairs))
            if rank == len(self.ranks):
                # It is no result of merges, but of a text that is a token as a whole.
                return
            pieces[at : at + 2] = [self._joined(*pairs[at])]
            yield from (*pairs[at], pieces[at])

    def _joined(self, left: str, right: str) -> str:
        return left + right.removeprefix(self.prefix)

    def cut(self, tokens: Collection[str]) -> dict[str, Any]:
        """The part `model` with these tokens alone, numbered in the order that they had."""
        kept = set(tokens)
        merges = [
            list(pair) for pair in self.merges if kept >= {*pair, self._joined(pair[0], pair[1])}
        ]
        return {**super().cut(tokens), "merges": merges}


class Unigram(WordPiece):
    """Takes the most likely tokens: those that are left stay as likely as they were."""

    def _ids(self) -> dict[str, int]:
        return {token: i for i, (token, _) in enumerate(self.model["vocab"])}

    def letters(self, token: str) -> list[str]:
        """The tokens of one character that stand for the same text."""
        return list(token)

    def always(self) -> Iterator[str]:
        """What no text can do without, and the least likely token: unknown text is rated by it."""
        vocabulary = self.model["vocab"]
        yield min(vocabulary, key=lambda entry: entry[1])[0]
        if self.model.get("unk_id") is not None:
            yield vocabulary[self.model["unk_id"]][0]
        if self.model.get("byte_fallback") and self.ids.keys() >= BYTES:
            yield from BYTES
            yield from (token for token in self.ids if len(token) == 1)
            return
        for token in self.ids:
            if len(token) == 1 or not all(letter in self.ids for letter in token):
                yield token

    def cut(self, tokens: Collection[str]) -> dict[str, Any]:
        """The part `model` with these tokens alone, numbered in the order that they had."""
        kept = set(tokens)
        vocabulary = [entry for entry in self.model["vocab"] if entry[0] in kept]
        unknown = self.model.get("unk_id")
        if unknown is not None:
            name = self.model["vocab"][unknown][0]
            unknown = next(i for i, (token, _) in enumerate(vocabulary) if token == name)
        return {**self.model, "vocab": vocabulary, "unk_id": unknown}


KINDS: Mapping[str, type[WordPiece]] = {
    "WordPiece": WordPiece,
    "BPE": BytePairs,
    "Unigram": Unigram,
}
