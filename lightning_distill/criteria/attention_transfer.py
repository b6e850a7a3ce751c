"""Attention transfer: where in a feature map the activity is."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_choice, check_positive, masked_mean
from ._maps import check_maps, same_places
from .criterion import Criterion

VARIANTS = ("paper", "code")


def attention_transfer(
    student: Float[Tensor, "batch _ _ _"],
    teacher: Float[Tensor, "batch _ _ _"],
    power: float = 2.0,
    variant: str = "paper",
) -> Float[Tensor, " batch"]:
    r"""Distance of the normalised maps of activity per sample.

    $$\Big\lVert \frac{Q_s}{\lVert Q_s \rVert} - \frac{Q_t}{\lVert Q_t \rVert} \Big\rVert, \quad
    Q = \mathrm{vec} \sum_c |F_c|^p$$

    Numbers of channels may differ; the larger map is averaged down to the smaller. The authors'
    program takes the mean square over the places in place of the norm; `variant="code"` is that.

    References:
        Zagoruyko and Komodakis, *Paying More Attention to Attention*, 2017,
        https://arxiv.org/abs/1612.03928, eq. 2.
    """
    check_choice("variant", variant, VARIANTS)
    check_positive("power", power)
    maps = [
        F.normalize((x.square() if power == 2 else x.abs().pow(power)).sum(dim=1).flatten(1), dim=1)
        for x in same_places(student, teacher)
    ]
    squares = (maps[0] - maps[1]).square()
    if variant == "code":
        return squares.mean(dim=1)
    total = squares.sum(dim=1)
    # The root of 0 has no gradient, and equal maps have nothing to learn.
    return torch.where(total > 0, total, 1.0).sqrt().masked_fill(total == 0, 0.0)


class AttentionTransfer(Criterion):
    """Mean of [`attention_transfer`][] over the samples that count.

    Args:
        power: of the activations; higher looks at the strongest alone.
        variant: `paper`, or `code` for what the authors' program computes (weighed by 1000 there).
    """

    def __init__(self, power: float = 2.0, variant: str = "paper"):
        super().__init__()
        check_positive("power", power)
        check_choice("variant", variant, VARIANTS)
        self.power, self.variant = power, variant

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true."""
        check_maps("AttentionTransfer", student, teacher)
        return masked_mean(attention_transfer(student, teacher, self.power, self.variant), mask)

    def extra_repr(self) -> str:  # noqa: D102
        return f"power={self.power}, variant={self.variant!r}"
