"""Activation boundaries: the student's neurons are active where the teacher's are."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import nn, Tensor

from ._check import check_positive, check_same_shape, in_full_precision, masked_mean
from ._connector import Connector
from ._maps import check_maps, same_places
from ._parts import apply, fitted, prepared
from ._samples import counted_samples, Mask
from .criterion import Criterion


def ab(
    student: Float[Tensor, "batch ..."],
    teacher: Float[Tensor, "batch ..."],
    margin: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""Squared hinge of the student's neurons on the teacher's side of 0, sum per sample.

    $$\sum_i [t_i > 0] \, \max(m - s_i, 0)^2 + [t_i \le 0] \, \max(m + s_i, 0)^2$$

    Both are features before the activation. The authors' program has the same sum, divides it by
    1000 and halves it for each layer further from the output; so does RepDistiller, times 3.

    References:
        Heo et al., *Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden
        Neurons*, 2019, https://arxiv.org/abs/1811.03233, section 3.
    """
    check_positive("margin", margin)
    check_same_shape(student, teacher)
    student, teacher = in_full_precision(student, teacher)
    side = torch.where(teacher > 0, -1.0, 1.0).to(student.dtype)
    return F.relu(margin + side * student).square().flatten(1).sum(dim=1)


class AB(Criterion):
    """Mean of [`ab`][] over the samples that count.

    Where the channels differ, the student's go through a trained 1x1 convolution and batch norm.
    The larger map is averaged down to the smaller.

    Args:
        margin: how far from 0 the student must be.
    """

    connector: nn.Module | None

    def __init__(self, margin: float = 1.0):
        super().__init__()
        check_positive("margin", margin)
        self.margin = margin
        self.register_module("connector", None)

    def prepare(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Mask = None,
    ) -> None:
        """Build the connector for the channels of these features."""
        if self.connector is None:
            s, t = student.shape[1], teacher.shape[1]
            if s != t:
                check_maps("AB", student, teacher)
            part = nn.Identity() if s == t else Connector(s, t)
            self.connector = fitted(self, part, student)

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Mask = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true."""
        connector = prepared(self, self.connector)
        student, teacher = same_places(*counted_samples(mask, student, teacher))
        return masked_mean(ab(apply(connector, student), teacher, self.margin))

    def extra_repr(self) -> str:  # noqa: D102
        return f"margin={self.margin}"
