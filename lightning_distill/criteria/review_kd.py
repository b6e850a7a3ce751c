"""Knowledge review: each stage of the teacher from all deeper stages of the student together."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._batch_norm import BatchNorm
from ._check import check_same_shape, in_full_precision, masked_mean, without_autocast
from ._parts import fitted, prepared
from ._samples import counted_samples
from .criterion import Criterion

LEVELS = (4, 2, 1)


def review_kd(
    student: Sequence[Float[Tensor, "batch _ _ _"]],
    teacher: Sequence[Float[Tensor, "batch _ _ _"]],
) -> Float[Tensor, " batch"]:
    r"""Hierarchical context loss per sample, summed over the stages.

    $$\sum_i \frac{1}{\sum_l 2^{-l}} \sum_{l=0}^{L_i} 2^{-l} \,
    \mathrm{mean}\big( (P_l(s_i) - P_l(t_i))^2 \big)$$

    where $P_0$ is the map as it is and the further ones are averages over $4 \times 4$,
    $2 \times 2$ and $1 \times 1$ places, as far as these are fewer than the map has in height and
    in width. `student` holds the fused maps, of the teacher's shapes.

    References:
        Chen et al., *Distilling Knowledge via Knowledge Review*, 2021,
        https://arxiv.org/abs/2104.09044, section 3; the weights are those of the authors'
        program.
    """
    losses = [_hierarchical(s, t) for s, t in zip(student, teacher, strict=True)]
    return torch.stack(losses).sum(dim=0)


def _hierarchical(student: Tensor, teacher: Tensor) -> Tensor:
    check_same_shape(student, teacher)
    student, teacher = in_full_precision(student, teacher)
    # Averaging is linear, so that the difference need be pooled only once.
    difference = student - teacher
    total, weight, weights = difference.square().mean(dim=(1, 2, 3)), 1.0, 1.0
    for level in LEVELS:
        if level < min(difference.shape[-2:]):
            weight /= 2
            weights += weight
            pooled = F.adaptive_avg_pool2d(difference, level)
            total = total + weight * pooled.square().mean(dim=(1, 2, 3))
    return total / weights


class _Fusion(nn.Module):
    """One stage of the student together with what comes from the deeper ones."""

    def __init__(self, student_channels: int, width: int, teacher_channels: int, deepest: bool):
        super().__init__()
        first = nn.Conv2d(student_channels, width, 1, bias=False)
        last = nn.Conv2d(width, teacher_channels, 3, padding=1, bias=False)
        for convolution in (first, last):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
        self.enter = nn.Sequential(first, BatchNorm(width))
        self.gates = None if deepest else nn.Conv2d(2 * width, 2, 1)
        self.leave = nn.Sequential(last, BatchNorm(teacher_channels))

    def forward(
        self, x: Tensor, deeper: Tensor | None, places: torch.Size
    ) -> tuple[Tensor, Tensor]:
        x = self.enter(x)
        if self.gates is not None and deeper is not None:
            deeper = F.interpolate(deeper, x.shape[-2:], mode="nearest")
            own, theirs = self.gates(torch.cat([x, deeper], dim=1)).sigmoid().split(1, dim=1)
            x = own * x + theirs * deeper
        if x.shape[-2:] != places:
            x = F.interpolate(x, places, mode="nearest")
        return self.leave(x), x


class ReviewKD(Criterion):
    """Mean of [`review_kd`][] over the samples that count, with trained fusions.

    From the deepest stage on upwards, each stage of the student is narrowed by a 1x1 convolution,
    fused with what comes from below by two gates per place, and brought to the teacher's channels
    by a 3x3 convolution. Give it lists of layers from shallow to deep, equally many of both; in a
    [`Term`][lightning_distill.Term], `mapping="together"` does so. Vectors count as maps of one
    place. The weight grows from 0 over the first 20 epochs in the authors' program.

    Args:
        width: channels of the fused maps; the authors take the channels of the deepest stage
            instead where it has fewer (CIFAR), and 256 for MobileNet.
    """

    fusions: nn.ModuleList | None

    def __init__(self, width: int = 512):
        super().__init__()
        if width < 1:
            raise ValueError(f"`width` must be at least 1, got {width}.")
        self.width = width
        self.register_module("fusions", None)

    def prepare(
        self,
        student: Sequence[Float[Tensor, "batch ..."]],
        teacher: Sequence[Float[Tensor, "batch ..."]],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> None:
        """Build a fusion for each pair of stages."""
        if self.fusions is not None:
            return
        _check_stages(student, teacher)
        deepest = len(student) - 1
        fusions = [
            _Fusion(s.shape[1], self.width, t.shape[1], i == deepest)
            for i, (s, t) in enumerate(zip(student, teacher, strict=True))
        ]
        self.fusions = fitted(self, nn.ModuleList(fusions), student[0])

    def forward(
        self,
        student: Sequence[Float[Tensor, "batch ..."]],
        teacher: Sequence[Float[Tensor, "batch ..."]],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true."""
        prepared(self, self.fusions)
        assert self.fusions is not None
        _check_stages(student, teacher, len(self.fusions))
        maps = [_as_map(x) for x in counted_samples(mask, *student, *teacher)]
        student, teacher = maps[: len(student)], maps[len(student) :]
        dtype = next(self.fusions.parameters()).dtype
        fused: list[Tensor] = []
        deeper = None
        with without_autocast(student[0]):
            for i in reversed(range(len(student))):
                found, deeper = self.fusions[i](student[i].to(dtype), deeper, teacher[i].shape[-2:])
                fused.insert(0, found)
        return masked_mean(review_kd(fused, teacher))

    def extra_repr(self) -> str:  # noqa: D102
        return f"width={self.width}"


def _as_map(x: Tensor) -> Tensor:
    return x[..., None, None] if x.dim() == 2 else x


def _check_stages(
    student: Sequence[Tensor], teacher: Sequence[Tensor], built: int | None = None
) -> None:
    if isinstance(student, Tensor) or isinstance(teacher, Tensor) or not len(student):
        raise ValueError(
            "ReviewKD takes lists of layers, got single tensors or none. In a term: name several "
            "layers, as in student.layer:layer1,layer2, and set mapping=together."
        )
    if len(student) != len(teacher) or built not in (None, len(student)):
        built_for = "" if built is None else f", built for {built}"
        raise ValueError(
            "ReviewKD needs as many layers of the student as of the teacher, got "
            f"{len(student)} and {len(teacher)}{built_for}."
        )
    for x in (*student, *teacher):
        if x.dim() not in (2, 4):
            raise ValueError(
                "ReviewKD compares maps (batch, channels, height, width) or vectors (batch, "
                f"features), got shape {tuple(x.shape)}."
            )
