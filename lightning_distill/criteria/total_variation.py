"""Total variation: the largest difference in probability of any set of classes."""

from functools import partial

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_temperature, masked_mean, Number, positive, Temperature, temperature_of
from ._log_probabilities import probabilities, through_softmax, WithGradient
from .criterion import Criterion


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
    return _of_difference(p - q)


def _of_difference(difference: Tensor) -> Tensor:
    return difference.abs().sum(dim=-1) / 2


def total_variation_with_gradient(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: float = 1.0,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch classes"]]:
    r"""[`total_variation`][] and its gradient with respect to the student's logits.

    $$\frac1\tau \, q_c \, (g_c - \textstyle\sum_k q_k g_k),
    \quad g = \tfrac12 \, \mathrm{sign}(q - p)$$
    """
    q, p = probabilities(student, teacher, temperature)
    difference = p.sub_(q)
    values = _of_difference(difference)
    return values, through_softmax(q, difference.sign_(), -0.5 / temperature)


class TotalVariation(Criterion):
    """Mean of [`total_variation`][] over the samples that count.

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
        """The mean over the samples for which `mask` is true."""
        temperature = temperature_of(self.temperature, student, teacher, mask)
        return masked_mean(total_variation(student, teacher, temperature), mask)

    def with_gradient(self) -> WithGradient:
        """The distance and its gradient at the temperature of now."""
        temperature = positive("temperature", self.temperature)
        return partial(total_variation_with_gradient, temperature=temperature)

    def extra_repr(self) -> str:  # noqa: D102
        return f"temperature={self.temperature}"
