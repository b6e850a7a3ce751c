"""Reverse KL: the student is not rewarded for covering what the teacher finds unlikely."""

from functools import partial

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_temperature, masked_mean, Number, positive, Temperature, temperature_of
from ._log_probabilities import kl, log_probabilities, log_softmax_and_softmax, WithGradient
from .criterion import Criterion


def reverse_kl(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: Temperature = 1.0,
) -> Float[Tensor, "*batch"]:
    r"""KL from the student to the teacher per sample, in nats.

    $$\tau^2 \, \mathrm{KL}\big(\sigma(s / \tau) \,\Vert\, \sigma(t / \tau)\big)$$

    It is large where the student is sure of what the teacher finds unlikely, so a small student
    settles on one of the teacher's modes where forward KL spreads over all.

    References:
        Gu et al., *MiniLLM: Knowledge Distillation of Large Language Models*, 2024,
        https://arxiv.org/abs/2306.08543, section 2.1 (there on sequences that the student
        generates; this is the divergence alone).
    """
    log_q, log_p = log_probabilities(student, teacher, temperature)
    return kl(log_q, log_p) * temperature**2


def reverse_kl_with_gradient(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: float = 1.0,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch classes"]]:
    r"""[`reverse_kl`][] and its gradient with respect to the student's logits.

    $$\tau \, q_c \Big(\log \frac{q_c}{p_c} - \mathrm{KL}(q \,\Vert\, p)\Big)$$
    """
    log_q, q, log_p, _ = log_softmax_and_softmax(student, teacher, temperature)
    divergence = kl(log_q, log_p, q).unsqueeze(-1)
    finite = divergence.isfinite()
    slope = log_q.sub_(log_p).sub_(divergence.where(finite, 0.0))
    # As autograd has it, what is infinite has no slope.
    gradient = slope.mul_(q).mul_(temperature * finite)
    return divergence.squeeze(-1) * temperature**2, gradient


class ReverseKL(Criterion):
    """Mean of [`reverse_kl`][] over the samples that count.

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
        return masked_mean(reverse_kl(student, teacher, temperature), mask)

    def with_gradient(self) -> WithGradient:
        """The divergence and its gradient at the temperature of now."""
        temperature = positive("temperature", self.temperature)
        return partial(reverse_kl_with_gradient, temperature=temperature)

    def extra_repr(self) -> str:  # noqa: D102
        return f"temperature={self.temperature}"
