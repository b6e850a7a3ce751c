"""Decoupled knowledge distillation: the label's class and the others weighed apart."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_temperature, labelled, masked_mean, Number, Temperature, temperature_of
from ._log_probabilities import kl, log_probabilities, without_label
from .criterion import Criterion


def dkd(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    labels: Int[Tensor, "*batch"],
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: Temperature = 4.0,
) -> Float[Tensor, "*batch"]:
    r"""Weighted sum of the two parts of KL per sample, in nats.

    $$\tau^2 \big( \alpha \, \mathrm{KL}(b_t \,\Vert\, b_s)
    + \beta \, \mathrm{KL}(\hat p_t \,\Vert\, \hat p_s) \big)$$

    where $b = (p_y, 1 - p_y)$ is the distribution over the label's class against the rest, and
    $\hat p$ that over the rest alone. With $\alpha = 1$ and $\beta = 1 - p_{t,y}$ it is
    [`soft_target`][]. Everything is computed from logarithms, so that a sure teacher gives no NaN.

    References:
        Zhao et al., *Decoupled Knowledge Distillation*, 2022, https://arxiv.org/abs/2203.08679,
        eq. 7.
    """
    log_q, log_p = log_probabilities(student, teacher, temperature)
    target_part = kl(_target_against_rest(log_p, labels), _target_against_rest(log_q, labels))
    rest_part = kl(without_label(log_p, labels), without_label(log_q, labels))
    return temperature**2 * (alpha * target_part + beta * rest_part)


def _target_against_rest(
    log_p: Float[Tensor, "*batch classes"], labels: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch 2"]:
    index = labels.unsqueeze(-1)
    rest = log_p.scatter(-1, index, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_p.gather(-1, index), rest], dim=-1)


class DKD(Criterion):
    """Mean of [`dkd`][] over the labelled samples that count.

    Args:
        alpha: weight of the part that tells the label's class from the rest.
        beta: weight of the part among the rest; the paper takes 2 to 8 on CIFAR-100, and 0.5 to 2
            on ImageNet with `temperature=1`.
        temperature: flattens both distributions before they are compared; a positive number,
            a schedule, or a module of `lightning_distill.temperatures`.
    """

    needs_classes = True

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: Number = 4.0):
        super().__init__()
        check_temperature(temperature)
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

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
        values = dkd(student, teacher, labels, self.alpha, self.beta, temperature)
        return masked_mean(values, counted)

    def extra_repr(self) -> str:  # noqa: D102
        return f"alpha={self.alpha}, beta={self.beta}, temperature={self.temperature}"
