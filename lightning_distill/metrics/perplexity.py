"""How unsure a language model is of the next token."""

from jaxtyping import Float, Int
from torch import Tensor

from ._nats import label_nats, Nats


class Perplexity(Nats):
    r"""Perplexity of a language model, over all tokens that count.

    $$\exp\Big(-\frac1N\sum_i\log p(\mathrm{label}_i)\Big)$$

    "Perplexity: a measure of the difficulty of speech recognition tasks", Jelinek et al., 1977. It
    depends on the tokens that a text is cut into; [`BitsPerByte`][] does not.

    `torchmetrics.text.Perplexity` takes the logarithm of a softmax, in the precision of the logits,
    and is infinite where a probability is rounded to 0; its sum and its count are one float32 each,
    which stand still from 1.7e7 tokens on.
    """

    def update(
        self, predicted: Float[Tensor, "*tokens vocabulary"], labels: Int[Tensor, "*tokens"]
    ) -> None:
        """Add the tokens of one batch.

        Args:
            predicted: logits.
            labels: the token that follows each position; -100 does not count.

        Raises:
            ValueError: if there is not one label for each position.
        """
        self.add(*label_nats(predicted, labels))

    def compute(self) -> Float[Tensor, ""]:
        """The perplexity over all batches and ranks; NaN if no token counted."""
        return self.mean().exp()
