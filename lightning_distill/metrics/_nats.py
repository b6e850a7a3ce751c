"""Sums of nats, and what they are made of."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric

UNLABELLED = -100


class Nats(Metric):
    """Nats summed over tokens, batches and ranks, in two float32 numbers.

    Float32 alone stands still: beside a sum of 1e8 a batch of 4 is nothing. Float64 would do, but
    not every device has it. So what an addition rounds off is kept and added at the end (Knuth's
    TwoSum, 1969).
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    reads_softmax = True

    def __init__(self) -> None:
        super().__init__()
        self.nats: Tensor
        self.rounded_off: Tensor
        self.tokens: Tensor
        # What each token of the last batch has added, by the names of states.
        self.added: dict[str, Tensor] = {}
        self.add_state("nats", default=torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("rounded_off", default=torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("tokens", default=torch.tensor(0), dist_reduce_fx="sum")

    def add(
        self, nats: Float[Tensor, " tokens"], counted: Bool[Tensor, "*all_tokens"] | None = None
    ) -> None:
        """Add the nats of some tokens.

        Args:
            nats: of those that count.
            counted: which of all tokens do; `None` if all.
        """
        of_all = nats.detach()
        if counted is not None:
            of_all = nats.new_zeros(counted.numel()).masked_scatter(counted.flatten(), of_all)
        ones = torch.ones_like(of_all) if counted is None else counted.flatten()
        self.added = {"nats": of_all, "tokens": ones.to(self.tokens.dtype)}
        term = nats.sum().to(self.nats.dtype)
        after = self.nats + term
        share = after - self.nats
        lost = (self.nats - (after - share)) + (term - share)
        # Of an infinite sum nothing is rounded off, and infinity minus itself is NaN.
        self.rounded_off = self.rounded_off + lost.where(after.isfinite(), 0.0)
        self.nats = after
        self.tokens = self.tokens + nats.numel()

    def total(self) -> Float[Tensor, ""]:
        """All nats."""
        return self.nats + self.rounded_off

    def mean(self) -> Float[Tensor, ""]:
        """Nats per token; NaN if there was none."""
        return self.total() / self.tokens

    def compute(self) -> Float[Tensor, ""]:
        """The mean over all batches and ranks; NaN if no token counted."""
        return self.mean()


def in_float32(logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The logits in float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


def label_nats(
    predicted: Float[Tensor, "*tokens vocabulary"], labels: Int[Tensor, "*tokens"]
) -> tuple[Float[Tensor, " counted"], Tensor]:
    """Minus the log-probability of each label that counts, and which do."""
    if predicted.shape[:-1] != labels.shape:
        raise ValueError(
            f"Each position needs one label: got logits of shape {tuple(predicted.shape)} and "
            f"labels of shape {tuple(labels.shape)}."
        )
    counted = labels != UNLABELLED
    logits = in_float32(predicted[counted])
    return torch.nn.functional.cross_entropy(logits, labels[counted], reduction="none"), counted


def check_same_ids(student: Tensor, teacher: Tensor) -> None:
    """Refuse logits that would broadcast."""
    if student.shape != teacher.shape:
        raise ValueError(
            "student and teacher must predict the same ids at the same positions, got logits of "
            f"shapes {tuple(student.shape)} and {tuple(teacher.shape)}."
        )


def kl(
    of: Float[Tensor, "*tokens vocabulary"], under: Float[Tensor, "*tokens vocabulary"]
) -> Float[Tensor, "*tokens"]:
    """KL(p, q) in nats: `of` are the logits of p, `under` those of q.

    What p rules out adds nothing, whatever q says of it; what q alone rules out is infinite.
    """
    log_p = in_float32(of).log_softmax(-1)
    p = log_p.exp()
    products = p * (log_p - in_float32(under).log_softmax(-1))
    return products.where(p > 0, 0.0).sum(-1)
