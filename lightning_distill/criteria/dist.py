"""DIST: correlation with the teacher over the classes, and over the batch."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_positive, Number, positive
from ._log_probabilities import probabilities
from ._parts import learns
from ._rows import logit_rows
from .criterion import Criterion


def dist(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    beta: float = 2.0,
    gamma: float = 2.0,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    r"""One minus Pearson's correlation of the probabilities, by rows and by columns.

    $$\tau^2 \Big( \beta \big( 1 - \tfrac{1}{B} \sum_b \rho(p_{b \cdot}, q_{b \cdot}) \big)
    + \gamma \big( 1 - \tfrac{1}{C} \sum_c \rho(p_{\cdot c}, q_{\cdot c}) \big) \Big)$$

    A student may be off in scale and level as long as it ranks as the teacher does, which suits
    teachers that are much stronger. Rows or columns without any spread have correlation 0. The
    authors' programs have $\beta = \gamma = 1$ unless told otherwise, and temperature 1.

    References:
        Huang et al., *Knowledge Distillation from A Stronger Teacher*, 2022,
        https://arxiv.org/abs/2205.10536, eq. 8 to 11.
    """
    q, p = probabilities(student, teacher, temperature)
    between_classes = 1 - _correlation(q, p, dim=1).mean()
    within_class = 1 - _correlation(q, p, dim=0).mean()
    return temperature**2 * (beta * between_classes + gamma * within_class)


def _correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    a, b = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
    return torch.cosine_similarity(a, b, dim=dim, eps=1e-8)


class DIST(Criterion):
    """[`dist`][] of the samples that count, whatever their leading shape.

    Args:
        beta: weight of the correlation over the classes of a sample.
        gamma: weight of the correlation over the samples of a class.
        temperature: flattens both distributions before they are compared; a positive number or a
            schedule. The paper takes 1 on ImageNet and 4 on CIFAR-100.
        gather: in training, compare the samples of all processes with each other, not only those of
            one.
    """

    needs_classes = True
    across_samples = True

    def __init__(
        self,
        beta: float = 2.0,
        gamma: float = 2.0,
        temperature: Number = 1.0,
        gather: bool = False,
    ):
        super().__init__()
        check_positive("temperature", temperature)
        self.beta, self.gamma, self.temperature, self.gather = beta, gamma, temperature, gather

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The value over the samples for which `mask` is true; 0 if there are none."""
        temperature = positive("temperature", self.temperature)
        student, teacher = logit_rows(student, teacher, mask, self.gather and learns(self))
        if len(student) == 0:
            return student.sum()
        return dist(student, teacher, self.beta, self.gamma, temperature)

    def extra_repr(self) -> str:  # noqa: D102
        return f"beta={self.beta}, gamma={self.gamma}, temperature={self.temperature}"
