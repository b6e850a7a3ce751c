"""Words left out of the student's and the teacher's text, the same ones whoever asks."""

from typing import Any

import torch


class TokenMasking:
    """Replaces tokens by the mask token, as TinyBERT (Jiao et al., 2020) does before it fills them.

    An augmentation is any callable `(tokens, generator) -> tokens`: `tokens` is int64 of shape
    (tokens,), and as many are given back; `generator` is a `torch.Generator` that depends on
    nothing but the seed, the row's number and the view. Two methods are optional:
    `use_tokenizer(tokenizer)` is called once before the first row, and an attribute `seed` takes
    the place of the data module's.

    Special tokens (`[CLS]`, `[SEP]`, `[UNK]`, ...) stay.

    Args:
        probability: share of the other tokens that is replaced, between 0 and 1.
        seed: another seed leaves out other words.

    Raises:
        ValueError: for a probability outside of 0 and 1, and a tokenizer without a mask token.
    """

    def __init__(self, probability: float = 0.15, seed: int = 0):
        if isinstance(probability, bool) or not isinstance(probability, int | float):
            raise ValueError(f"`probability` must be a number, got {probability!r}.")
        if not 0 <= probability <= 1:
            raise ValueError(f"`probability` lies between 0 and 1, got {probability}.")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ValueError(f"`seed` must be a whole number, got {seed!r}.")
        self.probability, self.seed = probability, seed
        self.mask_token_id: int | None = None
        self.special = torch.zeros(0, dtype=torch.int64)

    def use_tokenizer(self, tokenizer: Any) -> None:
        """Learn which token is the mask, and which are never replaced."""
        if tokenizer.mask_token_id is None:
            raise ValueError(
                "TokenMasking needs a tokenizer with a mask token, and this one has none: set "
                "tokenizer.mask_token and save it, or leave data.augmentation=null."
            )
        self.mask_token_id = tokenizer.mask_token_id
        self.special = torch.tensor(sorted(set(tokenizer.all_special_ids)))

    def __call__(self, tokens: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Replace some of a row's tokens.

        Args:
            tokens: int64, shape (tokens,).
            generator: decides which.
        """
        if self.mask_token_id is None:
            raise ValueError("Call use_tokenizer(tokenizer) first: the mask token is not known.")
        chosen = torch.rand(len(tokens), generator=generator) < self.probability
        return tokens.masked_fill(chosen & ~torch.isin(tokens, self.special), self.mask_token_id)

    def __repr__(self) -> str:
        return f"TokenMasking(probability={self.probability}, seed={self.seed})"
