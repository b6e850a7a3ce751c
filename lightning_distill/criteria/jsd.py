"""Generalised Jensen-Shannon divergence: between forward and reverse KL."""

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import (
    check_share,
    check_temperature,
    masked_mean,
    Number,
    positive,
    share,
    Temperature,
    temperature_of,
)
from ._log_probabilities import (
    kl_to_mixture,
    log_ratio,
    probabilities,
    through_softmax,
    WithGradient,
)
from .criterion import Criterion
from .reverse_kl import reverse_kl, reverse_kl_with_gradient
from .soft_target import soft_target, soft_target_with_gradient


def jsd(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    beta: float = 0.5,
    temperature: Temperature = 1.0,
) -> Float[Tensor, "*batch"]:
    r"""Divergence of both from their mixture per sample, in nats.

    $$\tau^2 \big( \beta \, \mathrm{KL}(p \,\Vert\, m)
    + (1 - \beta) \, \mathrm{KL}(q \,\Vert\, m) \big), \quad m = \beta p + (1 - \beta) q$$

    with teacher $p$ and student $q$. Near both ends it is forward and reverse KL in form, but falls
    to 0; so, as is usual, `beta=0` is forward KL and `beta=1` reverse KL themselves.

    References:
        Agarwal et al., *On-Policy Distillation of Language Models*, 2024,
        https://arxiv.org/abs/2306.13649, section 2.
    """
    check_share("beta", beta)
    if beta == 0:
        return soft_target(student, teacher, temperature)
    if beta == 1:
        return reverse_kl(student, teacher, temperature)
    q, p = probabilities(student, teacher, temperature)
    return _of_probabilities(q, p, torch.lerp(q, p, beta), beta) * temperature**2


def _of_probabilities(q: Tensor, p: Tensor, m: Tensor, beta: float) -> Tensor:
    return beta * kl_to_mixture(p, m) + (1 - beta) * kl_to_mixture(q, m)


def jsd_with_gradient(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    beta: float = 0.5,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch classes"]]:
    r"""[`jsd`][] and its gradient with respect to the student's logits.

    $$\tau \, (1 - \beta) \, q_c \Big(\log \frac{q_c}{m_c} - \mathrm{KL}(q \,\Vert\, m)\Big)$$

    What the mixture adds cancels: its gradient is $-(1 - \beta)$ for every class.
    """
    if beta == 0:
        return soft_target_with_gradient(student, teacher, temperature)
    if beta == 1:
        return reverse_kl_with_gradient(student, teacher, temperature)
    q, p = probabilities(student, teacher, temperature)
    m = torch.lerp(q, p, beta)
    gradient = through_softmax(q, log_ratio(q, m), temperature * (1 - beta))
    return _of_probabilities(q, p, m, beta) * temperature**2, gradient


class JSD(Criterion):
    """Mean of [`jsd`][] over the samples that count.

    Args:
        beta: share of the teacher in the mixture, from 0 (forward KL) to 1 (reverse KL); a number
            or a schedule.
        temperature: flattens both distributions before they are compared; a positive number,
            a schedule, or a module of `lightning_distill.temperatures`.
    """

    needs_classes = True

    def __init__(self, beta: Number = 0.5, temperature: Number = 1.0):
        super().__init__()
        check_temperature(temperature)
        check_share("beta", beta)
        self.temperature = temperature
        self.beta = beta

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true, in nats."""
        temperature = temperature_of(self.temperature, student, teacher, mask)
        beta = share("beta", self.beta)
        return masked_mean(jsd(student, teacher, beta, temperature), mask)

    def with_gradient(self) -> WithGradient:
        """The divergence and its gradient at the settings of now."""
        temperature = positive("temperature", self.temperature)
        beta = share("beta", self.beta)
        return partial(jsd_with_gradient, beta=beta, temperature=temperature)

    def extra_repr(self) -> str:  # noqa: D102
        return f"beta={self.beta}, temperature={self.temperature}"
