"""Margin MSE: how much better one candidate scores than others, for rankers."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_same_shape, in_full_precision, masked_mean
from .criterion import Criterion


def margin_mse(
    student: Float[Tensor, "*batch candidates"], teacher: Float[Tensor, "*batch candidates"]
) -> Float[Tensor, "*batch"]:
    r"""Squared difference of the margins of the first candidate per query.

    $$\frac{1}{n - 1} \sum_{j=2}^{n} \big( (s_1 - s_j) - (t_1 - t_j) \big)^2$$

    where $s_j$ is the student's score of candidate $j$; the first is the relevant one. Scores of
    both models may lie on different levels, since only differences count.

    References:
        Hofstätter et al., *Improving Efficient Neural Ranking Models with Cross-Architecture
        Knowledge Distillation*, 2020, https://arxiv.org/abs/2010.02666, eq. 6.
    """
    check_same_shape(student, teacher)
    if student.shape[-1] < 2:
        raise ValueError(
            "Scores need at least two candidates per query, the relevant one first; got shape "
            f"{tuple(student.shape)}."
        )
    student, teacher = in_full_precision(student, teacher)
    student, teacher = (x[..., :1] - x[..., 1:] for x in (student, teacher))
    return F.mse_loss(student, teacher, reduction="none").sum(dim=-1) / student.shape[-1]


class MarginMSE(Criterion):
    """Mean of [`margin_mse`][] over the queries that count."""

    compares_entries = True

    def forward(
        self,
        student: Float[Tensor, "*batch candidates"],
        teacher: Float[Tensor, "*batch candidates"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the queries for which `mask` is true."""
        return masked_mean(margin_mse(student, teacher), mask)
