"""Attention scores before the softmax, made of queries and keys."""

from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._attention import pairs
from ._check import check_positive, in_full_precision, masked_mean, without_autocast
from .attention_mse import attention_mse
from .criterion import Criterion


def attention_scores(
    query: Float[Tensor, "batch queries width"],
    key: Float[Tensor, "batch keys width"],
    heads: int,
) -> Float[Tensor, "batch heads queries keys"]:
    r"""How much each query asks of each key, before the softmax: $Q_i K_i^\top / \sqrt{d}$.

    Args:
        query: what the projection of queries returns.
        key: what the projection of keys returns.
        heads: into how many the width is split; $d$ is the width of one.
    """
    check_positive("heads", heads)
    if query.shape[-1] % heads:
        raise ValueError(f"The width {query.shape[-1]} of queries is no multiple of heads={heads}.")
    query, key = (
        x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in in_full_precision(query, key)
    )
    with without_autocast(query):
        return query @ key.transpose(2, 3) / query.shape[-1] ** 0.5


class AttentionScores(Criterion):
    """Mean of [`attention_mse`][] of the scores before the softmax, which no model returns.

    They are made of what the projections of queries and keys return, so that attention need not be
    computed eagerly. Where positions are turned into queries and keys after the projections (RoPE),
    they are left out, of both models.

    Args:
        heads: of both models, which must have the same number.

    References:
        Jiao et al., *TinyBERT: Distilling BERT for Natural Language Understanding*, 2020,
        https://arxiv.org/abs/1909.10351, eq. 7.
    """

    def __init__(self, heads: int = 12):
        super().__init__()
        check_positive("heads", heads)
        self.heads = heads

    def counted(self, **inputs: Any) -> Tensor | None:
        """The pairs of tokens of which both count."""
        mask = inputs.get("mask")
        return None if mask is None else pairs(mask)

    def forward(
        self,
        student: Float[Tensor, "batch tokens _"],
        teacher: Float[Tensor, "batch tokens _"],
        student_key: Float[Tensor, "batch tokens _"],
        teacher_key: Float[Tensor, "batch tokens _"],
        mask: Bool[Tensor, "batch tokens"] | Int[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the pairs of which `mask` is true for both tokens.

        `student` and `teacher` are the queries.
        """
        if mask is not None:
            # What stands at padding may be anything, and must not spoil the gradient.
            hidden = (mask == 0).unsqueeze(-1)
            student, teacher, student_key, teacher_key = (
                x.masked_fill(hidden, 0.0) for x in (student, teacher, student_key, teacher_key)
            )
        values = attention_mse(
            attention_scores(student, student_key, self.heads),
            attention_scores(teacher, teacher_key, self.heads),
        )
        return masked_mean(values, None if mask is None else pairs(mask))

    def extra_repr(self) -> str:  # noqa: D102
        return f"heads={self.heads}"
