"""Attention maps, entry by entry."""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._attention import check_heads, pairs
from ._check import in_full_precision, masked_mean
from ._weighing import in_force
from .criterion import Criterion


def attention_mse(
    student: Float[Tensor, "batch heads queries keys"],
    teacher: Float[Tensor, "batch heads queries keys"],
) -> Float[Tensor, "batch queries keys"]:
    r"""Squared difference of the attention per query and key, mean over the heads.

    $$\frac{1}{h} \sum_{i=1}^{h} (A^s_i - A^t_i)^2$$

    on scores before the softmax in the paper, or on probabilities.

    References:
        Jiao et al., *TinyBERT: Distilling BERT for Natural Language Understanding*, 2020,
        https://arxiv.org/abs/1909.10351, eq. 7.
    """
    return _squares(student, teacher).sum(dim=1) / student.shape[1]


def _squares(student: Tensor, teacher: Tensor) -> Tensor:
    check_heads(student, teacher)
    student, teacher = in_full_precision(student, teacher)
    return F.mse_loss(student, teacher, reduction="none")


class AttentionMSE(Criterion):
    """Mean of [`attention_mse`][] over the pairs of tokens that count."""

    def counted(self, **inputs: Any) -> Tensor | None:
        """The pairs of tokens of which both count."""
        mask, maps = inputs.get("mask"), inputs.get("student")
        if mask is None:
            return None
        # A mask of pairs may leave open how many keys there are.
        keys = -1 if maps is None else maps.shape[-1]
        return pairs(mask).expand(-1, -1, keys)

    def forward(
        self,
        student: Float[Tensor, "batch heads queries keys"],
        teacher: Float[Tensor, "batch heads queries keys"],
        mask: Bool[Tensor, "batch tokens"]
        | Int[Tensor, "batch tokens"]
        | Bool[Tensor, "batch queries #keys"]
        | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the pairs of which `mask` is true for both tokens.

        Of cross-attention, whose keys are other tokens, a mask says which pairs count.
        """
        if mask is None and in_force() is None:  # the mean of the means, in one pass
            return masked_mean(_squares(student, teacher))
        if mask is None:
            return masked_mean(attention_mse(student, teacher))
        counted = pairs(mask).expand(-1, -1, student.shape[-1])
        # Scores of padding are often minus infinity in both, and their difference NaN.
        hidden = ~counted.unsqueeze(1)
        student, teacher = (x.masked_fill(hidden, 0.0) for x in (student, teacher))
        return masked_mean(attention_mse(student, teacher), counted)
