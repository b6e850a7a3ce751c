"""How many bits a language model needs for a byte of text."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ._nats import label_nats, Nats


class BitsPerByte(Nats):
    r"""Bits that a language model needs for one byte of the text that it predicts.

    $$\frac{-\sum_i\log_2p(\mathrm{label}_i)}{\sum_i\mathrm{bytes}(\mathrm{label}_i)}$$

    Models whose tokenizers differ can be compared by it, and not by perplexity. Tokens that stand
    for no text, such as the end of a document, cost bits and have no bytes. "The Pile", Gao et al.,
    2020. The batch needs an entry `label_bytes`.
    """

    batch_entries = ("label_bytes",)

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Tensor
        self.add_state("bytes", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self,
        predicted: Float[Tensor, "*tokens vocabulary"],
        labels: Int[Tensor, "*tokens"],
        label_bytes: Int[Tensor, "*tokens"],
    ) -> None:
        """Add the tokens of one batch.

        Args:
            predicted: logits.
            labels: the token that follows each position; -100 does not count.
            label_bytes: how many bytes of UTF-8 each label stands for.

        Raises:
            ValueError: if there is not one label for each position.
        """
        nats, counted = label_nats(predicted, labels)
        self.add(nats, counted)
        self.bytes = self.bytes + label_bytes[counted].sum()
        self.added["bytes"] = (label_bytes * counted).flatten()

    def compute(self) -> Float[Tensor, ""]:
        """The bits per byte over all batches and ranks; NaN if no token counted."""
        return self.total() / (self.bytes * math.log(2))
