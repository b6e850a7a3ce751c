"""Flow of the solution procedure: how one layer's channels go with the next one's."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._check import check_choice, masked_mean, without_autocast
from ._maps import check_layers, same_places
from ._samples import Mask
from .criterion import Criterion

VARIANTS = ("paper", "repdistiller", "torchdistill")


def fsp(
    student: Sequence[Float[Tensor, "batch ..."]],
    teacher: Sequence[Float[Tensor, "batch ..."]],
    variant: str = "paper",
) -> Float[Tensor, " batch"]:
    r"""Squared distance of the Gram matrices of consecutive layers, sum over the pairs per sample.

    $$\sum_l \lVert G_s^l - G_t^l \rVert_F^2, \quad
    G^l_{ij} = \frac{1}{N} \sum_n F^l_{in} F^{l+1}_{jn}$$

    where $N$ counts the places. Of two layers the larger map is pooled down to the smaller, by
    maximum. The `repdistiller` variant averages the larger map, and takes the mean over the matrix
    in place of the sum; `torchdistill` sums the lengths of the columns, $\sum_j \lVert (G_s -
    G_t)_{\cdot j} \rVert_2$.

    Args:
        student: maps of two or more layers, in order.
        teacher: those of as many layers with the same channels; maps may differ in size.
        variant: `paper`, `repdistiller` or `torchdistill`.

    References:
        Yim et al., *A Gift from Knowledge Distillation: Fast Optimization, Network Minimization
        and Transfer Learning*, CVPR 2017, section 3.
    """
    check_choice("variant", variant, VARIANTS)
    check_layers("FSP", student, teacher)
    values = []
    for i in range(len(student) - 1):
        matrices = [_flow(x[i], x[i + 1], variant) for x in (student, teacher)]
        difference = matrices[0] - matrices[1]
        if variant == "torchdistill":
            values.append(torch.linalg.vector_norm(difference, dim=1).sum(dim=1))
        else:
            squares = difference.square().flatten(1)
            values.append(squares.mean(dim=1) if variant == "repdistiller" else squares.sum(dim=1))
    return torch.stack(values).sum(dim=0)


def _flow(first: Tensor, second: Tensor, variant: str) -> Tensor:
    pool = F.adaptive_avg_pool2d if variant == "repdistiller" else F.adaptive_max_pool2d
    first, second = same_places(first, second, pool=pool)
    with without_autocast(first):
        flow = first.flatten(2) @ second.flatten(2).transpose(1, 2)
    return flow / first.shape[2:].numel()


class FSP(Criterion):
    """Mean of [`fsp`][] over the samples that count.

    In a term, name several layers of each model and set `mapping=together`.

    Args:
        variant: `paper`, `repdistiller` or `torchdistill`.
    """

    def __init__(self, variant: str = "paper"):
        super().__init__()
        check_choice("variant", variant, VARIANTS)
        self.variant = variant

    def forward(
        self,
        student: Sequence[Float[Tensor, "batch ..."]],
        teacher: Sequence[Float[Tensor, "batch ..."]],
        mask: Mask = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true."""
        return masked_mean(fsp(student, teacher, self.variant), mask)

    def extra_repr(self) -> str:  # noqa: D102
        return f"variant={self.variant!r}"
