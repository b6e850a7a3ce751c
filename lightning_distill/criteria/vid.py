"""Variational information distillation: how well the student predicts the teacher's features."""

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import nn, Tensor

from ._check import check_positive, check_same_shape, in_full_precision, masked_mean
from ._maps import check_maps, same_places
from ._parts import apply, fitted, prepared
from ._samples import counted_samples, Mask
from .criterion import Criterion

SMALLEST = 1e-5


def vid(
    student: Float[Tensor, "batch channels *places"],
    teacher: Float[Tensor, "batch channels *places"],
    variance: Float[Tensor, " channels"],
) -> Float[Tensor, " batch"]:
    r"""Negative log-likelihood of the teacher's features per sample, mean over them, in nats.

    $$\frac{1}{C N} \sum_{c n} \frac12 \Big( \frac{(\mu_{cn} - t_{cn})^2}{v_c} + \log v_c \Big)$$

    where $\mu$ is what the student predicts and $N$ counts the places. It is negative where the
    variance is small. The paper writes a sum over channels and places, and a constant that it does
    not name, $\frac12 \log 2 \pi$ each; the authors' program takes the mean and leaves it out.

    References:
        Ahn et al., *Variational Information Distillation for Knowledge Transfer*, 2019,
        https://arxiv.org/abs/1904.05835, section 2.
    """
    check_same_shape(student, teacher)
    student, teacher, variance = in_full_precision(student, teacher, variance)
    squares = (student - teacher).square().flatten(2).mean(dim=2)
    return 0.5 * (squares / variance + variance.log()).mean(dim=1)


class VID(Criterion):
    r"""Mean of [`vid`][] over the samples that count, with a trained prediction and variance.

    $\mu$ is three 1x1 convolutions with ReLU between them and without bias, the hidden ones as
    wide as the teacher, and $v = \log(1 + e^a) + 10^{-5}$ with a trained $a$ per channel: as in
    the authors' program, which RepDistiller keeps. The larger map is averaged down to the smaller.

    Args:
        variance: that of every channel at the start; more than 1e-5.
    """

    mean: nn.Module | None
    raw_variance: Tensor | None

    def __init__(self, variance: float = 5.0):
        super().__init__()
        check_positive("variance", variance)
        if variance <= SMALLEST:
            raise ValueError(f"`variance` must be more than {SMALLEST}, got {variance}.")
        self.variance = variance
        self.register_module("mean", None)
        self.register_parameter("raw_variance", None)

    def prepare(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Mask = None,
    ) -> None:
        """Build the parts for the channels of these features."""
        if self.mean is not None:
            return
        check_maps("VID", student, teacher)
        s, t = student.shape[1], teacher.shape[1]
        layers: list[nn.Module] = [nn.Conv2d(s, t, 1, bias=False)]
        for _ in range(2):
            layers += [nn.ReLU(), nn.Conv2d(t, t, 1, bias=False)]
        self.mean = fitted(self, nn.Sequential(*layers), student)
        # The inverse of softplus.
        start = math.log(math.expm1(self.variance - SMALLEST))
        (like,) = in_full_precision(student)
        self.raw_variance = nn.Parameter(like.new_full((t,), start))

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Mask = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true, in nats."""
        check_maps("VID", student, teacher)
        mean = prepared(self, self.mean)
        assert self.raw_variance is not None
        student, teacher = same_places(*counted_samples(mask, student, teacher))
        variance = F.softplus(self.raw_variance.to(student.dtype)) + SMALLEST
        return masked_mean(vid(apply(mean, student), teacher, variance))

    def extra_repr(self) -> str:  # noqa: D102
        return f"variance={self.variance}"
