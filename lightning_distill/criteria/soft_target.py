"""Soft targets: match the teacher's class distribution at a raised temperature."""

from functools import partial

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_temperature, masked_mean, Number, positive, Temperature, temperature_of
from ._log_probabilities import kl, kl_and_softmax, log_probabilities, WithGradient
from .criterion import Criterion


def soft_target(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: Temperature = 4.0,
) -> Float[Tensor, "*batch"]:
    r"""Divergence of the student from the teacher per sample, in nats.

    $$\tau^2 \, \mathrm{KL}\big(\sigma(t / \tau) \,\|\, \sigma(s / \tau)\big)$$

    The factor $\tau^2$ keeps the size of the gradient independent of the temperature, so that
    a change of $\tau$ does not silently change the weight of the term. Classes that the teacher
    rules out (logit $-\infty$) add nothing.

    References:
        Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network*, 2015,
        https://arxiv.org/abs/1503.02531, section 2.
    """
    log_q, log_p = log_probabilities(student, teacher, temperature)
    return kl(log_p, log_q) * temperature**2


def soft_target_with_gradient(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: float = 4.0,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch classes"]]:
    r"""[`soft_target`][] and its gradient with respect to the student's logits.

    $$\tau \, (q - p), \quad p = \sigma(t / \tau), \; q = \sigma(s / \tau)$$
    """
    divergence, q, p = kl_and_softmax(student, teacher, temperature)
    values, gradient = divergence * temperature**2, q.sub_(p)
    return values, gradient if temperature == 1 else gradient.mul_(temperature)


class SoftTarget(Criterion):
    """Mean of [`soft_target`][] over the samples that count.

    Args:
        temperature: flattens both distributions before they are compared; a positive number,
            a schedule, or a module of `lightning_distill.temperatures`.
    """

    needs_classes = True

    def __init__(self, temperature: Number = 4.0):
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
        return masked_mean(soft_target(student, teacher, temperature), mask)

    def with_gradient(self) -> WithGradient:
        """The divergence and its gradient at the temperature of now."""
        temperature = positive("temperature", self.temperature)
        return partial(soft_target_with_gradient, temperature=temperature)

    def extra_repr(self) -> str:  # noqa: D102
        return f"temperature={self.temperature}"
