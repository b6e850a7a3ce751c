"""Teacher-free distillation: a virtual teacher that is right with a set probability."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_choice, check_positive, in_full_precision, labelled, masked_mean
from ._log_probabilities import kl, log_softmax
from .criterion import Criterion

VARIANTS = ("paper", "code")


def tf_kd(
    student: Float[Tensor, "*batch classes"],
    labels: Int[Tensor, "*batch"],
    correct: float = 0.99,
    temperature: float = 20.0,
    variant: str = "paper",
) -> Float[Tensor, "*batch"]:
    r"""KL from a virtual teacher to the student per sample, in nats.

    $$\tau^2 \, \mathrm{KL}\big(\sigma(\log p^d / \tau) \,\Vert\, \sigma(s / \tau)\big), \quad
    p^d_y = a, \; p^d_{c \ne y} = \frac{1 - a}{C - 1}$$

    The authors' code does something else: $\mathrm{KL}(\sigma(p^d / \tau) \,\Vert\, \sigma(s))$,
    which takes probabilities for logits, and is a label smoothing that all but forgets the label;
    `variant="code"` is that.

    The other half of the paper, a teacher that is the student itself, trained before, needs no
    criterion of its own: give that model as teacher to [`soft_target`][].

    References:
        Yuan et al., *Revisiting Knowledge Distillation via Label Smoothing Regularization*, 2020,
        https://arxiv.org/abs/1909.11723, section 4.
    """
    check_positive("temperature", temperature)
    check_choice("variant", variant, VARIANTS)
    classes = student.shape[-1]
    if not 1 / classes < correct < 1:
        raise ValueError(
            f"`correct` is the probability of the right class: more than 1/{classes}, that of "
            f"chance, and less than 1; got {correct}."
        )
    (student,) = in_full_precision(student)
    rest = (1 - correct) / (classes - 1)
    if variant == "code":
        high, low, tau = correct, rest, 1.0
    else:
        high, low, tau = math.log(correct), math.log(rest), temperature
    teacher = torch.full_like(student, low / temperature)
    teacher = teacher.scatter(-1, labels.unsqueeze(-1), high / temperature)
    return kl(log_softmax(teacher), log_softmax(student / tau)) * tau**2


class TfKD(Criterion):
    """Mean of [`tf_kd`][] over the labelled samples that count; it needs no teacher.

    Args:
        correct: the virtual teacher's probability of the right class.
        temperature: flattens the distributions before they are compared; a positive number.
        variant: `paper`, or `code` for what the authors' program computes.
    """

    needs_classes = True

    def __init__(self, correct: float = 0.99, temperature: float = 20.0, variant: str = "paper"):
        super().__init__()
        check_positive("temperature", temperature)
        check_choice("variant", variant, VARIANTS)
        self.correct, self.temperature, self.variant = correct, temperature, variant

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        labels: Int[Tensor, "*batch"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples with a label (not -100) for which `mask` is true, in nats."""
        labels, counted = labelled(labels, mask)
        values = tf_kd(student, labels, self.correct, self.temperature, self.variant)
        return masked_mean(values, counted)

    def extra_repr(self) -> str:  # noqa: D102
        return f"correct={self.correct}, temperature={self.temperature}, variant={self.variant!r}"
