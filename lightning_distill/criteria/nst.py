"""Neuron selectivity transfer: the same places excite the channels of both models."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import masked_mean, without_autocast
from ._maps import check_maps, same_places
from .criterion import Criterion


def nst(
    student: Float[Tensor, "batch _ _ _"], teacher: Float[Tensor, "batch _ _ _"]
) -> Float[Tensor, " batch"]:
    r"""Squared maximum mean discrepancy of the channels' maps per sample, polynomial kernel.

    $$\frac{1}{C_t^2} \sum_{ij} k(t_i, t_j) + \frac{1}{C_s^2} \sum_{ij} k(s_i, s_j)
    - \frac{2}{C_s C_t} \sum_{ij} k(s_i, t_j), \quad k(a, b) = (a^\top b)^2$$

    where $s_i$ is the map of channel $i$, flattened and of length 1. Numbers of channels may
    differ; the larger map is averaged down to the smaller. Where there are fewer places than
    channels it is computed as the distance of the Gram matrices of the places, which is the same.

    References:
        Huang and Wang, *Like What You Like: Knowledge Distill via Neuron Selectivity Transfer*,
        2017, https://arxiv.org/abs/1707.01219, eq. 8 and 9.
    """
    s, t = (F.normalize(x.flatten(2), dim=2) for x in same_places(student, teacher))
    with without_autocast(s):
        if s.shape[2] <= max(s.shape[1], t.shape[1]):
            g_s, g_t = (x.mT @ x / x.shape[1] for x in (s, t))
            return (g_s - g_t).square().sum(dim=(1, 2))
        t_t, s_s, s_t = ((a @ b.mT).square().mean(dim=(1, 2)) for a, b in ((t, t), (s, s), (s, t)))
    return t_t + s_s - 2 * s_t


class NST(Criterion):
    """Mean of [`nst`][] over the samples that count."""

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true."""
        check_maps("NST", student, teacher)
        return masked_mean(nst(student, teacher), mask)
