"""Skewed reverse KL: reverse KL that stays bounded where the teacher rules something out."""

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


def skew_reverse_kl(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    alpha: float = 0.1,
    temperature: Temperature = 1.0,
) -> Float[Tensor, "*batch"]:
    r"""KL from the student to a mixture of both per sample, in nats.

    $$\tau^2 \, \mathrm{KL}\big(q \,\Vert\, (1 - \alpha) p + \alpha q\big)$$

    with teacher $p$ and student $q$. `alpha=0` is [`reverse_kl`][]; above, no sample adds more than
    $-\tau^2 \log \alpha$.

    References:
        Ko et al., *DistiLLM: Towards Streamlined Distillation for Large Language Models*, 2024,
        https://arxiv.org/abs/2402.03898, section 3.1.
    """
    check_share("alpha", alpha)
    if alpha == 0:
        return reverse_kl(student, teacher, temperature)
    q, p = probabilities(student, teacher, temperature)
    return kl_to_mixture(q, torch.lerp(p, q, alpha)) * temperature**2


def skew_reverse_kl_with_gradient(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    alpha: float = 0.1,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch classes"]]:
    r"""[`skew_reverse_kl`][] and its gradient with respect to the student's logits.

    $$\tau \, q_c \, (g_c - \textstyle\sum_k q_k g_k),
    \quad g = \log \frac qm - \alpha \, \frac qm$$
    """
    if alpha == 0:
        return reverse_kl_with_gradient(student, teacher, temperature)
    q, p = probabilities(student, teacher, temperature)
    m = torch.lerp(p, q, alpha)
    slope = log_ratio(q, m).sub_(q / (m + torch.finfo(m.dtype).tiny), alpha=alpha)
    gradient = through_softmax(q, slope, temperature)
    return kl_to_mixture(q, m) * temperature**2, gradient


class SkewReverseKL(Criterion):
    """Mean of [`skew_reverse_kl`][] over the samples that count.

    Args:
        alpha: share of the student in the mixture, from 0 to 1; a number or a schedule.
        temperature: flattens both distributions before they are compared; a positive number,
            a schedule, or a module of `lightning_distill.temperatures`.
    """

    needs_classes = True

    def __init__(self, alpha: Number = 0.1, temperature: Number = 1.0):
        super().__init__()
        check_temperature(temperature)
        check_share("alpha", alpha)
        self.temperature = temperature
        self.alpha = alpha

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true, in nats."""
        temperature = temperature_of(self.temperature, student, teacher, mask)
        alpha = share("alpha", self.alpha)
        return masked_mean(skew_reverse_kl(student, teacher, alpha, temperature), mask)

    def with_gradient(self) -> WithGradient:
        """The divergence and its gradient at the settings of now."""
        temperature = positive("temperature", self.temperature)
        alpha = share("alpha", self.alpha)
        return partial(skew_reverse_kl_with_gradient, alpha=alpha, temperature=temperature)

    def extra_repr(self) -> str:  # noqa: D102
        return f"alpha={self.alpha}, temperature={self.temperature}"
