"""Total variation: the largest difference in probability of any set of classes."""

from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._check import check_temperature, masked_mean, Number, Temperature, temperature_of
from ._log_probabilities import probabilities


def total_variation(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: Temperature = 1.0,
) -> Float[Tensor, "*batch"]:
    r"""Total variation distance per sample, from 0 to 1.

    $$\frac{1}{2} \sum_c |p_c - q_c|$$

    It is symmetric and bounded, and has no factor $\tau^2$: it is no divergence in nats.

    References:
        Wen et al., *f-Divergence Minimization for Sequence-Level Knowledge Distillation*, 2023,
        https://arxiv.org/abs/2307.15190, section 3.2.
    """
    q, p = probabilities(student, teacher, temperature)
    return (p - q).abs().sum(dim=-1) / 2


class TotalVariation(nn.Module):
    """Mean of [`total_variation`][] over the samples that count.

    Args:
        temperature: flattens both distributions before they are compared; a positive number,
            a schedule, or a module of `lightning_distill.temperatures`.
    """

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
        """The mean over the samples for which `mask` is true."""
        temperature = temperature_of(self.temperature, student, teacher, mask)
        return masked_mean(total_variation(student, teacher, temperature), mask)

    def extra_repr(self) -> str:  # noqa: D102
        return f"temperature={self.temperature}"
