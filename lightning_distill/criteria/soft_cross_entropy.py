"""Soft cross-entropy: the teacher's distribution in place of one-hot labels."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_temperature, masked_mean, Number, Temperature, temperature_of
from ._log_probabilities import at_temperature, cross_entropy, log_softmax
from .criterion import Criterion


def soft_cross_entropy(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: Temperature = 1.0,
) -> Float[Tensor, "*batch"]:
    r"""Cross-entropy of the student under the teacher's distribution per sample, in nats.

    $$-\tau^2 \sum_c \sigma(t / \tau)_c \log \sigma(s / \tau)_c$$

    It is [`soft_target`][] plus the teacher's entropy, which no student can change: the same
    gradient, but not 0 where student and teacher agree.

    References:
        Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network*, 2015,
        https://arxiv.org/abs/1503.02531, section 2.
    """
    student, teacher = at_temperature(student, teacher, temperature)
    p, log_q = F.softmax(teacher, dim=-1), log_softmax(student)
    return cross_entropy(p, log_q) * temperature**2


class SoftCrossEntropy(Criterion):
    """Mean of [`soft_cross_entropy`][] over the samples that count.

    Args:
        temperature: flattens both distributions before they are compared; a positive number,
            a schedule, or a module of `lightning_distill.temperatures`.
    """

    needs_classes = True

    def __init__(self, temperature: Number = 1.0):
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true, in nats."""
        temperature = temperature_of(self.temperature, student, teacher, mask)
        return masked_mean(soft_cross_entropy(student, teacher, temperature), mask)

    def extra_repr(self) -> str:  # noqa: D102
        return f"temperature={self.temperature}"
