"""Inter-channel correlation: which channels of a feature map go together."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import nn, Tensor

from ._check import in_full_precision, masked_mean, without_autocast
from ._connector import Connector
from ._maps import check_maps
from ._parts import apply, fitted, prepared
from ._samples import counted_samples, Mask
from .criterion import Criterion


def ickd(
    student: Float[Tensor, "batch _ ..."], teacher: Float[Tensor, "batch _ ..."]
) -> Float[Tensor, " batch"]:
    r"""Squared distance of the correlations of the channels, mean over the channels per sample.

    $$\frac{1}{C} \lVert \tilde G_s - \tilde G_t \rVert_F^2, \quad G = F F^\top$$

    where $\tilde G$ is $G$ with rows of length 1, and $F$ has a row per channel. Maps may differ
    in size. Of few places the same is computed without the $C \times C$ matrices. The authors'
    program for CIFAR-100 is this; theirs for ImageNet, and torchdistill, divide by the size of the
    batch once more.

    References:
        Liu et al., *Exploring Inter-Channel Correlation for Diversity-preserved Knowledge
        Distillation*, ICCV 2021, https://arxiv.org/abs/2202.03680, section 3.
    """
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            "student and teacher must have the same channels, got "
            f"{student.shape[1]} and {teacher.shape[1]}. The module ICKD trains a connector."
        )
    # Rows of length 1 do not depend on the scale, and fourth powers would overflow.
    s, t = (
        F.normalize(x.flatten(1), dim=1).view_as(x).flatten(2)
        for x in in_full_precision(student, teacher)
    )
    with without_autocast(s):
        if 2 * max(s.shape[2], t.shape[2]) >= s.shape[1]:
            rows = [F.normalize(x @ x.transpose(1, 2), dim=2) for x in (s, t)]
            return (rows[0] - rows[1]).square().sum(dim=2).mean(dim=1)
        across, own, of_teacher = (_dots(a, b) for a, b in ((s, t), (s, s), (t, t)))
    # A channel without activity has a row of 0, which stays so.
    norms = [x.clamp(min=1e-24) for x in (own, of_teacher)]
    cosine = across / (norms[0].sqrt() * norms[1].sqrt())
    return (own / norms[0] + of_teacher / norms[1] - 2 * cosine).mean(dim=1)


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """Dot products of the rows of the Gram matrices of `a` and `b`."""
    return ((a @ (a.transpose(1, 2) @ b)) * b).sum(dim=2)


class ICKD(Criterion):
    """Mean of [`ickd`][] over the samples that count.

    Where the channels differ, the student's go through a trained 1x1 convolution and batch norm;
    in the authors' program for CIFAR-100 they always do.
    """

    connector: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
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
                check_maps("ICKD", student, teacher)
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
        student, teacher = in_full_precision(*counted_samples(mask, student, teacher))
        return masked_mean(ickd(apply(connector, student), teacher))
