"""Probabilistic knowledge transfer: who is whose neighbour, as probabilities."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_choice, in_full_precision, without_autocast
from ._parts import learns
from ._rows import feature_rows
from .criterion import Criterion

VARIANTS = ("paper", "code")


def pkt(
    student: Float[Tensor, "batch _"], teacher: Float[Tensor, "batch _"], variant: str = "paper"
) -> Float[Tensor, ""]:
    r"""KL between the neighbourhoods of each sample in both models, in nats.

    $$\frac{1}{B} \sum_i \sum_{j \ne i} p_{j|i} \log \frac{p_{j|i}}{q_{j|i}}, \quad
    p_{j|i} = \frac{K(t_i, t_j)}{\sum_{k \ne i} K(t_i, t_k)}$$

    with $K(a, b) = (\cos(a, b) + 1) / 2$, and $q$ the same of the student.

    The authors' program counts each sample among its own neighbours and takes the mean over all
    pairs, which is about $B$ times less; `variant="code"` is that.

    References:
        Passalis and Tefas, *Learning Deep Representations with Probabilistic Knowledge Transfer*,
        2018, https://arxiv.org/abs/1803.10837, eq. 4 to 8.
    """
    check_choice("variant", variant, VARIANTS)
    student, teacher = in_full_precision(student, teacher)
    q, p = (_neighbours(x, variant) for x in (student, teacher))
    terms = p * ((p + 1e-7) / (q + 1e-7)).log()
    return terms.mean() if variant == "code" else terms.sum() / len(terms)


def _neighbours(x: Tensor, variant: str) -> Tensor:
    with without_autocast(x):
        unit = F.normalize(x, dim=1)
        alike = (unit @ unit.T + 1) / 2
    if variant == "paper":
        alike = alike.masked_fill(torch.eye(len(x), dtype=torch.bool, device=x.device), 0.0)
    return alike / alike.sum(dim=1, keepdim=True).clamp(min=1e-7)


class PKT(Criterion):
    """[`pkt`][] of the samples that count.

    Args:
        variant: `paper`, or `code` for what the authors' program computes.
        gather: in training, compare the samples of all processes with each other, not only those of
            one.
    """

    across_samples = True

    def __init__(self, variant: str = "paper", gather: bool = False):
        super().__init__()
        check_choice("variant", variant, VARIANTS)
        self.variant = variant
        self.gather = gather

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The value over the samples for which `mask` is true; 0 if there are fewer than two.

        Samples are the first dimension, and the rest of each is flattened; with a mask, samples
        are its entries, such as the tokens of a `(batch, tokens)` mask.
        """
        student, teacher = feature_rows(student, teacher, mask, self.gather and learns(self))
        if len(student) < 2:
            return 0.0 * student.sum()
        return pkt(student, teacher, self.variant)

    def extra_repr(self) -> str:  # noqa: D102
        return f"variant={self.variant!r}"
