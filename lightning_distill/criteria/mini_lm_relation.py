"""MiniLM: how tokens relate in queries, keys and values, whatever the number of heads."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_positive, in_full_precision, masked_mean, without_autocast
from ._log_probabilities import kl, log_softmax
from .criterion import Criterion


def mini_lm_relation(
    student: Float[Tensor, "batch tokens _"],
    teacher: Float[Tensor, "batch tokens _"],
    relation_heads: int,
    mask: Bool[Tensor, "batch tokens"] | Int[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, "batch tokens"]:
    r"""KL between the relations of each token to all others, mean over the heads, in nats.

    $$\frac{1}{A_r} \sum_a \mathrm{KL}\big( \sigma(T_a T_a^\top / \sqrt{d_t}) \,\Vert\,
    \sigma(S_a S_a^\top / \sqrt{d_s}) \big)$$

    The vectors (queries, keys or values of one layer, each a term of its own) are split anew into
    $A_r$ heads of $d = \mathrm{width} / A_r$ numbers, so that widths and heads may differ.

    Args:
        student: what a projection of the student returns.
        teacher: what the same projection of the teacher returns.
        relation_heads: $A_r$; both widths must be multiples of it.
        mask: tokens that take part, as keys; padding is no one's relation.

    References:
        Wang et al., *MiniLMv2: Multi-Head Self-Attention Relation Distillation for Compressing
        Pretrained Transformers*, 2021, https://arxiv.org/abs/2012.15828, eq. 4 to 6.
    """
    check_positive("relation_heads", relation_heads)
    log_q, log_p = (
        _relations(x, name, relation_heads, mask)
        for name, x in zip(("student", "teacher"), in_full_precision(student, teacher), strict=True)
    )
    return kl(log_p, log_q).mean(dim=1)


def _relations(x: Tensor, name: str, heads: int, mask: Tensor | None) -> Tensor:
    if x.shape[-1] % heads:
        raise ValueError(
            f"The {name}'s width {x.shape[-1]} is no multiple of relation_heads={heads}."
        )
    split = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    with without_autocast(x):
        scores = split @ split.transpose(2, 3) / split.shape[-1] ** 0.5
    if mask is not None:
        absent = (mask == 0)[:, None, None, :]
        # A row without any token has no relations; zeros keep it finite, and it does not count.
        nobody = absent.all(dim=-1, keepdim=True)
        scores = scores.masked_fill(absent, -torch.inf).masked_fill(nobody, 0.0)
    return log_softmax(scores)


class MiniLMRelation(Criterion):
    """Mean of [`mini_lm_relation`][] over the tokens that count.

    Args:
        relation_heads: into how many heads both are split; the paper takes 48 for 768 wide
            teachers and 64 for 1024 wide ones.
    """

    def __init__(self, relation_heads: int = 48):
        super().__init__()
        check_positive("relation_heads", relation_heads)
        self.relation_heads = relation_heads

    def forward(
        self,
        student: Float[Tensor, "batch tokens _"],
        teacher: Float[Tensor, "batch tokens _"],
        mask: Bool[Tensor, "batch tokens"] | Int[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the tokens for which `mask` is true, in nats."""
        if mask is not None:
            # What stands at padding may be anything, and must not spoil the gradient.
            hidden = (mask == 0).unsqueeze(-1)
            student, teacher = (x.masked_fill(hidden, 0.0) for x in (student, teacher))
        return masked_mean(mini_lm_relation(student, teacher, self.relation_heads, mask), mask)

    def extra_repr(self) -> str:  # noqa: D102
        return f"relation_heads={self.relation_heads}"
