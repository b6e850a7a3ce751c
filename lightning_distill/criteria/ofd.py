"""Overhaul of feature distillation: what the teacher passes on, and a floor for the rest."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import nn, Tensor

from ._check import check_same_shape, in_full_precision, masked_mean
from ._connector import Connector
from ._gather import gather_rows
from ._maps import check_maps, same_places
from ._parts import apply, fitted, learns, prepared
from ._samples import counted_samples, Mask
from .criterion import Criterion


def ofd(
    student: Float[Tensor, "batch channels *places"],
    teacher: Float[Tensor, "batch channels *places"],
    margin: Float[Tensor, " channels"],
) -> Float[Tensor, " batch"]:
    r"""Partial squared distance to the teacher's features after a margin ReLU, sum per sample.

    $$\sum_i (s_i - t'_i)^2, \quad t' = \max(t, m_c)$$

    over all $i$ but those with $s_i \le t'_i \le 0$. Both are features before the activation;
    $m_c$, not above 0, belongs to the channel. The authors' program has the same sum, divides it by
    1000 and halves it for each layer further from the output. mmrazor leaves the margin out, which
    is a margin of minus infinity here.

    References:
        Heo et al., *A Comprehensive Overhaul of Feature Distillation*, 2019,
        https://arxiv.org/abs/1904.01866, section 3.
    """
    check_same_shape(student, teacher)
    student, teacher, margin = in_full_precision(student, teacher, margin)
    floor = margin.reshape(-1, *[1] * (teacher.dim() - 2)).to(teacher.dtype)
    wanted = teacher.maximum(floor)
    difference = (student - wanted).masked_fill((student <= wanted) & (wanted <= 0), 0.0)
    return difference.square().flatten(1).sum(dim=1)


def ofd_margin(
    weight: Float[Tensor, " channels"], bias: Float[Tensor, " channels"]
) -> Float[Tensor, " channels"]:
    r"""The mean of a batch-normalised channel where it is negative, from its weight and bias.

    $$\beta - |\gamma| \, \frac{\phi(\beta / |\gamma|)}{\Phi(-\beta / |\gamma|)}$$

    that of a normal distribution of mean $\beta$ and deviation $|\gamma|$, and $-3 |\gamma|$ for
    channels of which less than a thousandth is negative, as in the authors' program.
    """
    bias, weight = in_full_precision(bias.detach(), weight.detach())
    deviation = weight.abs()
    # A channel of weight 0 is constant.
    ratio = bias / deviation.clamp(min=1e-12)
    negative = torch.special.ndtr(-ratio)
    density = (-ratio.square() / 2).exp() / math.sqrt(2 * math.pi)
    mean = bias - deviation * density / negative.clamp(min=1e-3)
    return torch.where(negative > 1e-3, mean, -3 * deviation).clamp(max=0.0)


class OFD(Criterion):
    """Mean of [`ofd`][] over the samples that count.

    The student's features go through a trained 1x1 convolution and batch norm; the larger map is
    averaged down to the smaller. Margins are the expectation of the teacher's negative responses.
    The paper computes it from the batch norm before the activation, which [`ofd_margin`][] does;
    if none are given, they are the mean of all negative responses seen in training, 0 before that,
    in the checkpoint and equal on every rank.

    Args:
        margin: of each of the teacher's channels, or one for all; not above 0. By default the
            running mean.
    """

    connector: nn.Module | None
    floor: Tensor | None
    seen: Tensor | None

    def __init__(self, margin: Float[Tensor, " channels"] | Sequence[float] | float | None = None):
        super().__init__()
        if isinstance(margin, Sequence):
            margin = list(margin)
        given = None if margin is None else torch.as_tensor(margin, dtype=torch.float32).detach()
        if given is not None and not (given <= 0).all():
            raise ValueError(
                "`margin` must not be above 0: it is the expectation of negative responses; got "
                f"{float(given.max())} among others."
            )
        self.margin = given
        self.register_module("connector", None)
        self.register_buffer("floor", None)
        self.register_buffer("seen", None)

    def prepare(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Mask = None,
    ) -> None:
        """Build the connector and the margins for the channels of these features."""
        if self.connector is not None:
            return
        check_maps("OFD", student, teacher)
        channels = teacher.shape[1]
        margin = torch.zeros(channels) if self.margin is None else self.margin
        if margin.dim() and margin.shape != (channels,):
            raise ValueError(
                f"`margin` must have one number per channel of the teacher, {channels}, got "
                f"shape {tuple(margin.shape)}."
            )
        part = Connector(student.shape[1], channels)
        self.connector = fitted(self, part, student)
        self.floor = margin.expand(channels).clone().to(teacher.device)
        if self.margin is None:
            # Whole numbers: a module in 16 bits could not count in its own dtype.
            self.seen = torch.zeros(channels, dtype=torch.long, device=teacher.device)

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Mask = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true."""
        check_maps("OFD", student, teacher)
        connector = prepared(self, self.connector)
        student, teacher = counted_samples(mask, student, teacher)
        if self.seen is not None and learns(self):
            self._advance(teacher)
        assert self.floor is not None
        student, teacher = same_places(student, teacher)
        return masked_mean(ofd(apply(connector, student), teacher, self.floor))

    @torch.no_grad()
    def _advance(self, teacher: Tensor) -> None:
        assert self.floor is not None and self.seen is not None
        (teacher,) = in_full_precision(teacher)
        totals = torch.stack([teacher.clamp(max=0.0), (teacher < 0).to(teacher.dtype)])
        totals = totals.sum(dim=(1, 3, 4))
        total, count = gather_rows(totals.unsqueeze(0)).sum(0)
        self.seen += count.long()
        mean = self.floor + (total - count * self.floor) / self.seen.clamp(min=1)
        self.floor.copy_(mean)

    def extra_repr(self) -> str:  # noqa: D102
        return f"margin={'running mean' if self.margin is None else self.margin}"
