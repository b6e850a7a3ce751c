"""Which tokens of a row are hidden, and what stands there instead."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int

from ..draw import keyed

IGNORED = -100
# Of the chosen tokens so many become the mask token, and so many another token; the others stay.
MASKED, REPLACED = 0.8, 0.1


class TokenMasks:
    """Masks as BERT has them: of each row a share of the tokens, at least one.

    Of the chosen tokens 80 % become the mask token, 10 % any other token, and 10 % stay as they
    are; all of them are labels. Special tokens are never chosen.

    With `whole_word` whole words are chosen, in random order, each that still fits into the share;
    where none fits, the first alone. A token that stays or is replaced is drawn for each token of a
    word by itself, as BERT's own program does.

    Args:
        probability: share of a row's tokens that are chosen, above 0 and below 1.
        whole_word: choose all tokens of a word together.

    Raises:
        ValueError: for a probability outside of 0 and 1.

    References:
        Devlin et al., *BERT: Pre-training of Deep Bidirectional Transformers*, 2019,
        https://arxiv.org/abs/1810.04805, section 3.1; masks that are drawn anew: Liu et al.,
        *RoBERTa*, 2019, https://arxiv.org/abs/1907.11692, section 4.1.
    """

    def __init__(self, probability: float = 0.15, whole_word: bool = False):
        if isinstance(probability, bool) or not isinstance(probability, int | float):
            raise ValueError(f"`mask_probability` must be a number, got {probability!r}.")
        if not 0 < probability < 1:
            raise ValueError(f"`mask_probability` lies above 0 and below 1, got {probability}.")
        if not isinstance(whole_word, bool):
            raise ValueError(f"`whole_word` must be true or false, got {whole_word!r}.")
        self.probability, self.whole_word = probability, whole_word
        self.mask_token_id = -1
        self.ordinary = np.zeros(0, dtype=np.int64)
        self._is_ordinary = np.zeros(0, dtype=bool)

    def use_tokenizer(self, tokenizer: Any) -> None:
        """Learn which token is the mask, and which tokens may stand for another.

        Raises:
            ValueError: for a tokenizer without a mask token.
        """
        if tokenizer.mask_token_id is None:
            raise ValueError(
                "Masked language modelling needs a tokenizer with a mask token, and data.tokenizer "
                "has none: set tokenizer.mask_token and save it, or leave data.tokenizer=null, "
                "with which one is trained on the texts."
            )
        self.mask_token_id = tokenizer.mask_token_id
        special = set(tokenizer.all_special_ids)
        ids = set(tokenizer.get_vocab().values())
        self.ordinary = np.array(sorted(ids - special), dtype=np.int64)
        # A table, for it is asked of every token of every row.
        self._is_ordinary = np.zeros(max(ids | special) + 1, dtype=bool)
        self._is_ordinary[self.ordinary] = True

    def generator(self, seed: int | str, row: int, view: int) -> torch.Generator:
        """What decides the masks of a row: its number, the seed and the view, and nothing else."""
        return keyed("masks", seed, row, view)

    def maskable(self, tokens: Int[np.ndarray, " tokens"]) -> Bool[np.ndarray, " tokens"]:
        """Which tokens may be chosen: those that are not special."""
        return self._is_ordinary[tokens]

    def __call__(
        self,
        tokens: Int[np.ndarray, " tokens"],
        words: Int[np.ndarray, " tokens"],
        generator: torch.Generator,
    ) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " tokens"]]:
        """What a model is given, and the labels.

        Args:
            tokens: of a row.
            words: the number of the word that each is of.
            generator: decides.
        """
        places = np.flatnonzero(self.maskable(tokens))
        # What is drawn for each place: its turn, what becomes of it, and by which token.
        drawn = torch.rand(3, len(places), dtype=torch.float64, generator=generator).numpy()
        turns, fates, others = drawn
        wanted = max(1, round(self.probability * len(places)))
        if self.whole_word:
            chosen = _whole_words(words[places], turns, wanted)
        else:
            chosen = np.sort(np.argsort(turns, kind="stable")[:wanted])
        labels = np.full_like(tokens, IGNORED)
        labels[places[chosen]] = tokens[places[chosen]]
        given = tokens.copy()
        hidden = chosen[fates[chosen] < MASKED]
        given[places[hidden]] = self.mask_token_id
        swapped = chosen[(fates[chosen] >= MASKED) & (fates[chosen] < MASKED + REPLACED)]
        given[places[swapped]] = self.ordinary[(others[swapped] * len(self.ordinary)).astype(int)]
        return given, labels

    def __repr__(self) -> str:
        return f"TokenMasks(probability={self.probability}, whole_word={self.whole_word})"


def _whole_words(words: np.ndarray, turns: np.ndarray, wanted: int) -> np.ndarray:
    """The tokens of those words, taken by the turn of their first, that fit into `wanted`."""
    begins = np.flatnonzero(np.append(True, words[1:] != words[:-1])) if len(words) else words
    ends = np.append(begins[1:], len(words))
    order, left, taken = np.argsort(turns[begins], kind="stable").tolist(), wanted, []
    for word in order:
        size = int(ends[word] - begins[word])
        if size <= left:
            taken.append(word)
            left -= size
        if not left:
            break
    taken = taken or order[:1]
    found = [np.arange(begins[word], ends[word]) for word in sorted(taken)]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
