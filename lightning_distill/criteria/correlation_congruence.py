"""Correlation congruence: a Gaussian kernel between the samples of a batch."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_positive, in_full_precision, without_autocast
from ._parts import learns
from ._rows import feature_rows
from .criterion import Criterion


def correlation_congruence(
    student: Float[Tensor, "batch _"],
    teacher: Float[Tensor, "batch _"],
    gamma: float = 0.4,
    order: int = 2,
) -> Float[Tensor, ""]:
    r"""Squared difference of the kernel matrices of a batch.

    $$\frac{1}{B^2} \lVert K_s - K_t \rVert_F^2, \quad K(x, y) \approx
    \sum_{p=0}^{P} e^{-2\gamma} \frac{(2\gamma)^p}{p!} (\bar x^\top \bar y)^p$$

    which is the Gaussian kernel $e^{-\gamma \lVert \bar x - \bar y \rVert^2}$ of unit vectors,
    expanded to order $P$. RepDistiller computes something else under this name: how the products
    of neighbours in the batch differ.

    References:
        Peng et al., *Correlation Congruence for Knowledge Distillation*, 2019,
        https://arxiv.org/abs/1904.01802, eq. 4 to 7.
    """
    student, teacher = in_full_precision(student, teacher)
    k_s, k_t = (_kernel(x, gamma, order) for x in (student, teacher))
    return (k_s - k_t).square().mean()


def _kernel(x: Tensor, gamma: float, order: int) -> Tensor:
    with without_autocast(x):
        unit = F.normalize(x, dim=1)
        cosine = unit @ unit.T
    total = torch.ones_like(cosine)
    for p in range(1, order + 1):
        total = total + (2 * gamma) ** p / math.factorial(p) * cosine**p
    return math.exp(-2 * gamma) * total


class CorrelationCongruence(Criterion):
    """[`correlation_congruence`][] of the samples that count.

    Args:
        gamma: of the kernel; larger looks at nearer neighbours.
        order: of the expansion.
        gather: in training, compare the samples of all processes with each other, not only those of
            one.
    """

    across_samples = True

    def __init__(self, gamma: float = 0.4, order: int = 2, gather: bool = False):
        super().__init__()
        check_positive("gamma", gamma)
        check_positive("order", order)
        self.gamma, self.order = gamma, order
        self.gather = gather

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The value over the samples for which `mask` is true; 0 if there are fewer than two.

        Samples are the first dimension, and the rest of each is flattened; with a mask, samples
        are its entries, such as the tokens of a `(batch, tokens)` mask.
        """
        student, teacher = feature_rows(student, teacher, mask, self.gather and learns(self))
        if len(student) < 2:
            return 0.0 * student.sum()
        return correlation_congruence(student, teacher, self.gamma, self.order)

    def extra_repr(self) -> str:  # noqa: D102
        return f"gamma={self.gamma}, order={self.order}"
