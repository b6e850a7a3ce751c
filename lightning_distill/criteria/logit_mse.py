"""Logit matching: squared error between raw logits."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_same_shape, in_full_precision, masked_mean
from ._weighing import in_force
from .criterion import Criterion


def logit_mse(
    student: Float[Tensor, "*batch classes"], teacher: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch"]:
    r"""Mean squared difference of the logits per sample.

    $$\frac{1}{C} \sum_c (s_c - t_c)^2$$

    There is no temperature: with the factor $\tau^2$ it cancels.

    References:
        Ba and Caruana, *Do Deep Nets Really Need to be Deep?*, 2014,
        https://arxiv.org/abs/1312.6184, section 2.
        Kim et al., *Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in
        Knowledge Distillation*, 2021, https://arxiv.org/abs/2105.08919.
    """
    return _squares(student, teacher).sum(dim=-1) / student.shape[-1]


def _squares(student: Tensor, teacher: Tensor) -> Tensor:
    check_same_shape(student, teacher)
    student, teacher = in_full_precision(student, teacher)
    return F.mse_loss(student, teacher, reduction="none")


class LogitMSE(Criterion):
    """Mean of [`logit_mse`][] over the samples that count."""

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true."""
        if mask is None and in_force() is None:  # the mean of the means, in one pass
            return masked_mean(_squares(student, teacher))
        return masked_mean(logit_mse(student, teacher), mask)
