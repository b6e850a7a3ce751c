"""Normalised knowledge distillation: the teacher's trust in the label, and its view of the rest."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_temperature, labelled, masked_mean, Number, Temperature, temperature_of
from ._log_probabilities import cross_entropy, log_probabilities, without_label
from .criterion import Criterion


def nkd(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    labels: Int[Tensor, "*batch"],
    gamma: float = 1.5,
    temperature: Temperature = 1.0,
) -> Float[Tensor, "*batch"]:
    r"""Label loss by the teacher's trust, and cross-entropy among the other classes, in nats.

    $$-p_{t,y} \log p_{s,y} - \gamma \tau^2 \sum_{c \ne y} \hat p_{t,c} \log \hat p_{s,c}$$

    where $p$ is at temperature 1, and $\hat p$ at temperature $\tau$ over the classes other than
    the label's, made to sum to 1.

    References:
        Yang et al., *From Knowledge Distillation to Self-Knowledge Distillation: A Unified
        Approach with Normalized Loss and Customized Soft Labels*, 2023,
        https://arxiv.org/abs/2303.13005, section 3.2.
    """
    log_q, log_p = log_probabilities(student, teacher, 1.0)
    index = labels.unsqueeze(-1)
    trusted = log_p.gather(-1, index).exp() * log_q.gather(-1, index)
    log_q, log_p = log_probabilities(student, teacher, temperature)
    log_q, log_p = without_label(log_q, labels), without_label(log_p, labels)
    others = cross_entropy(log_p.exp(), log_q)
    return gamma * temperature**2 * others - trusted.squeeze(-1)


class NKD(Criterion):
    """Mean of [`nkd`][] over the labelled samples that count.

    Args:
        gamma: weight of the part among the other classes.
        temperature: flattens the distributions over the other classes; a positive number or a
            schedule.
    """

    needs_classes = True

    def __init__(self, gamma: float = 1.5, temperature: Number = 1.0):
        super().__init__()
        check_temperature(temperature)
        self.gamma, self.temperature = gamma, temperature

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
        return masked_mean(nkd(student, teacher, labels, self.gamma, temperature), counted)

    def extra_repr(self) -> str:  # noqa: D102
        return f"gamma={self.gamma}, temperature={self.temperature}"
