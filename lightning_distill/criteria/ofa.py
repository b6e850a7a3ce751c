"""One for all: the label's class is stressed by how much the teacher believes in it."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_positive, labelled, masked_mean
from ._log_probabilities import at_temperature, cross_entropy, log_softmax
from .criterion import Criterion


def ofa(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    labels: Int[Tensor, "*batch"],
    epsilon: float = 1.5,
) -> Float[Tensor, "*batch"]:
    r"""Cross-entropy with the teacher's distribution, sharpened at the label, per sample, in nats.

    $$-\sum_c \big( (p_{t,c} + 1_{c=y})^{\epsilon} - 1_{c=y} \big) \log p_{s,c}$$

    For teacher and student of different kinds, such as a transformer and a convolutional network;
    the paper also applies it to the logits of exits within the student. With $\epsilon = 1$ it is
    [`soft_cross_entropy`][] at temperature 1.

    References:
        Hao et al., *One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge
        Distillation*, 2023, https://arxiv.org/abs/2310.19444, eq. 7.
    """
    check_positive("epsilon", epsilon)
    student, teacher = at_temperature(student, teacher, 1.0)
    p, log_q = F.softmax(teacher, dim=-1), log_softmax(student)
    index = labels.unsqueeze(-1)
    of_label = (p.gather(-1, index) + 1) ** epsilon - 1
    wanted = (p**epsilon).scatter(-1, index, of_label)
    return cross_entropy(wanted, log_q)


class OFA(Criterion):
    """Mean of [`ofa`][] over the labelled samples that count.

    Args:
        epsilon: 1 or more; how much a confident teacher stresses the label. The paper takes 1.5 on
            ImageNet and 1 on CIFAR-100.
    """

    needs_classes = True

    def __init__(self, epsilon: float = 1.5):
        super().__init__()
        check_positive("epsilon", epsilon)
        self.epsilon = epsilon

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        labels: Int[Tensor, "*batch"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples with a label (not -100) for which `mask` is true, in nats."""
        labels, counted = labelled(labels, mask)
        return masked_mean(ofa(student, teacher, labels, self.epsilon), counted)

    def extra_repr(self) -> str:  # noqa: D102
        return f"epsilon={self.epsilon}"
