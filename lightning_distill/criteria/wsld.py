"""Weighted soft labels: samples that the student masters already are weighed down."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_temperature, labelled, masked_mean, Number, Temperature, temperature_of
from .criterion import Criterion
from .hard_label import hard_label
from .soft_cross_entropy import soft_cross_entropy


def wsld(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    labels: Int[Tensor, "*batch"],
    temperature: Temperature = 2.0,
) -> Float[Tensor, "*batch"]:
    r"""Soft cross-entropy, weighed by how far the student is behind, per sample, in nats.

    $$-\tau^2 \Big( 1 - e^{-L_s / L_t} \Big) \sum_c \sigma(t / \tau)_c \log \sigma(s / \tau)_c$$

    where $L$ is the cross-entropy with the label at temperature 1. The weight has no gradient.

    References:
        Zhou et al., *Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff
        Perspective*, 2021, https://arxiv.org/abs/2102.00650, eq. 9.
    """
    with torch.no_grad():
        of_student, of_teacher = (hard_label(x, labels) for x in (student, teacher))
        # A teacher that is right to the last bit has no loss to divide by.
        weight = -torch.expm1(-of_student / of_teacher.clamp(min=1e-7))
    return weight * soft_cross_entropy(student, teacher, temperature)


class WSLD(Criterion):
    """Mean of [`wsld`][] over the labelled samples that count.

    Args:
        temperature: flattens both distributions before they are compared; a positive number,
            a schedule, or a module of `lightning_distill.temperatures`.
    """

    needs_classes = True

    def __init__(self, temperature: Number = 2.0):
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        labels: Int[Tensor, "*batch"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples with a label (not -100) for which `mask` is true, in nats."""
        labels, counted = labelled(labels, mask)
        temperature = temperature_of(self.temperature, student, teacher, counted)
        return masked_mean(wsld(student, teacher, labels, temperature), counted)

    def extra_repr(self) -> str:  # noqa: D102
        return f"temperature={self.temperature}"
