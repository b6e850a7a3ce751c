"""TAID: a teacher that moves from the student's own distribution to the real teacher's."""

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_share, in_full_precision, masked_mean, Number, share
from ._log_probabilities import kl, log_probabilities, WithGradient
from .criterion import Criterion
from .soft_target import soft_target_with_gradient


def taid(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    alpha: float,
) -> Float[Tensor, "*batch"]:
    r"""KL from an intermediate teacher to the student per sample, in nats.

    $$\mathrm{KL}\big(\sigma((1 - \alpha) \, \mathrm{sg}(s) + \alpha t) \,\Vert\, \sigma(s)\big)$$

    where $\mathrm{sg}$ stops the gradient. With $\alpha = 1$ it is forward KL.

    References:
        Shing et al., *TAID: Temporally Adaptive Interpolated Distillation for Efficient Knowledge
        Transfer in Language Models*, 2025, https://arxiv.org/abs/2501.16937, section 3.
    """
    check_share("alpha", alpha)
    student, teacher = in_full_precision(student, teacher)
    intermediate = _between(student.detach(), teacher, alpha)
    log_q, log_p = log_probabilities(student, intermediate, 1.0)
    return kl(log_p, log_q)


def taid_with_gradient(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    alpha: float,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch classes"]]:
    r"""[`taid`][] and its gradient with respect to the student's logits: $q$ less the teacher's."""
    student, teacher = in_full_precision(student, teacher)
    return soft_target_with_gradient(student, _between(student, teacher, alpha), 1.0)


def _between(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    # Not torch.lerp, which takes a difference: of two infinite logits that is NaN.
    if alpha in (0, 1):
        return teacher if alpha else student
    return student.mul(1 - alpha).add_(teacher, alpha=alpha)


class TAID(Criterion):
    r"""Mean of [`taid`][] over the samples that count; the share of the teacher grows.

    `alpha` says how far the intermediate teacher must be at least; where the loss falls quickly it
    runs ahead, by $\delta \, \sigma(m) (1 - \alpha)$ a step, where $m$ is a moving mean of the
    relative fall of the loss. The state is in the checkpoint and equal on every rank.

    Args:
        alpha: the teacher's least share: a schedule from 0.4 to 1 in the paper, or a number.
        step: $\delta$; 0 follows `alpha` alone.
        momentum: of the moving mean.
    """

    needs_classes = True

    position: Tensor
    trend: Tensor
    previous: Tensor

    def __init__(self, alpha: Number = 0.4, step: float = 5e-4, momentum: float = 0.99):
        super().__init__()
        check_share("alpha", alpha)
        check_share("step", step)
        check_share("momentum", momentum)
        self.alpha, self.step, self.momentum = alpha, step, momentum
        self.register_buffer("position", torch.zeros(()))
        self.register_buffer("trend", torch.zeros(()))
        self.register_buffer("previous", torch.tensor(torch.nan))

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true, in nats."""
        return masked_mean(taid(student, teacher, self._now()), mask)

    def with_gradient(self) -> WithGradient:
        """The divergence and its gradient for the intermediate teacher of now."""
        return partial(taid_with_gradient, alpha=self._now())

    @torch.no_grad()
    def observe(self, value: Float[Tensor, ""]) -> None:
        """Move the intermediate teacher by how the loss fell; in training only.

        Training says it after each batch. In a loop of your own, call it with the value.

        Args:
            value: the mean of the last batch, of all processes.
        """
        if not self.training or not self.step:
            return
        now = self._now()
        if not self.previous.isnan():
            fall = (self.previous - value) / (self.previous + 1e-15)
            self.trend.mul_(self.momentum).add_((1 - self.momentum) * fall)
            self.position.fill_(now + self.step * float(self.trend.sigmoid()) * (1 - now))
        self.previous.copy_(value)

    def _now(self) -> float:
        return max(share("alpha", self.alpha), float(self.position))

    def extra_repr(self) -> str:  # noqa: D102
        return f"alpha={self.alpha}, step={self.step}, momentum={self.momentum}"
