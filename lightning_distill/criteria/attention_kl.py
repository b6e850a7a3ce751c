"""Attention maps as distributions over the keys."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._attention import check_heads
from ._check import in_full_precision, masked_mean
from .criterion import Criterion


def attention_kl(
    student: Float[Tensor, "batch heads queries keys"],
    teacher: Float[Tensor, "batch heads queries keys"],
) -> Float[Tensor, "batch queries"]:
    r"""KL between the attention probabilities per query, mean over the heads, in nats.

    $$\frac{1}{h} \sum_{i=1}^{h} \sum_k A^t_{i,k} \log \frac{A^t_{i,k}}{A^s_{i,k}}$$

    Both must be probabilities over the keys, as `attentions` of Hugging Face models are. A key
    that gets less than $10^{-12}$ counts as if it got that.

    References:
        Wang et al., *MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of
        Pre-Trained Transformers*, 2020, https://arxiv.org/abs/2002.10957, eq. 6.
    """
    check_heads(student, teacher)
    student, teacher = (F.threshold(x, 1e-12, 1e-12) for x in in_full_precision(student, teacher))
    return (teacher * (teacher.log() - student.log())).sum(dim=(1, 3)) / student.shape[1]


class AttentionKL(Criterion):
    """Mean of [`attention_kl`][] over the queries that count."""

    def forward(
        self,
        student: Float[Tensor, "batch heads queries keys"],
        teacher: Float[Tensor, "batch heads queries keys"],
        mask: Bool[Tensor, "batch tokens"]
        | Int[Tensor, "batch tokens"]
        | Bool[Tensor, "batch queries #keys"]
        | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the queries for which `mask` is true, in nats.

        Keys need no mask: both models give padding no attention. Of a mask of pairs, a query counts
        that has a key.
        """
        if mask is not None and mask.dim() == 3:
            mask = mask.any(dim=-1)
        return masked_mean(attention_kl(student, teacher), mask)
