"""Cosine of hidden states: the direction of each token's vector."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_same_shape, in_full_precision, masked_mean
from .criterion import Criterion


def cosine_hidden(
    student: Float[Tensor, "*batch width"], teacher: Float[Tensor, "*batch width"]
) -> Float[Tensor, "*batch"]:
    r"""One minus the cosine of student and teacher per token, from 0 to 2.

    $$1 - \frac{s^\top t}{\lVert s \rVert \lVert t \rVert}$$

    References:
        Sanh et al., *DistilBERT, a distilled version of BERT: smaller, faster, cheaper and
        lighter*, 2019, https://arxiv.org/abs/1910.01108, section 3.
    """
    check_same_shape(student, teacher)
    student, teacher = in_full_precision(student, teacher)
    return 1 - torch.cosine_similarity(student, teacher, dim=-1)


class CosineHidden(Criterion):
    """Mean of [`cosine_hidden`][] over the tokens that count."""

    def forward(
        self,
        student: Float[Tensor, "*batch width"],
        teacher: Float[Tensor, "*batch width"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the tokens for which `mask` is true."""
        return masked_mean(cosine_hidden(student, teacher), mask)
