"""Neuron selectivity transfer: the same places excite the channels of both models."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._check import masked_mean, without_autocast
from ._maps import same_places


def nst(
    student: Float[Tensor, "batch _ _ _"], teacher: Float[Tensor, "batch _ _ _"]
) -> Float[Tensor, " batch"]:
    r"""Squared maximum mean discrepancy of the channels' maps per sample, polynomial kernel.

    $$\frac{1}{C_t^2} \sum_{ij} k(t_i, t_j) + \frac{1}{C_s^2} \sum_{ij} k(s_i, s_j)
    - \frac{2}{C_s C_t} \sum_{ij} k(s_i, t_j), \quad k(a, b) = (a^\top b)^2$$

    where $s_i$ is the map of channel $i$, flattened and of length 1. Numbers of channels may
    differ; the larger map is averaged down to the smaller. It is computed as the distance of the
    Gram matrices of the places, which is the same.

    References:
        Huang and Wang, *Like What You Like: Knowledge Distill via Neuron Selectivity Transfer*,
        2017, https://arxiv.org/abs/1707.01219, eq. 8 and 9.
    """
    grams = []
    for x in same_places(student, teacher):
        unit = F.normalize(x.flatten(2), dim=2)
        with without_autocast(unit):
            grams.append(unit.transpose(1, 2) @ unit / unit.shape[1])
    return (grams[0] - grams[1]).square().sum(dim=(1, 2))


class NST(nn.Module):
    """Mean of [`nst`][] over the samples that count."""

    def forward(
        self,
        student: Float[Tensor, "batch _ _ _"],
        teacher: Float[Tensor, "batch _ _ _"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true."""
        return masked_mean(nst(student, teacher), mask)
