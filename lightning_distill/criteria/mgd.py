"""Masked generative distillation: the teacher's map regained from parts of the student's."""

import torch
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._check import (
    check_choice,
    check_positive,
    check_same_shape,
    check_share,
    in_full_precision,
    masked_mean,
)
from ._maps import check_maps, same_places
from ._parts import apply, fitted, prepared
from ._samples import counted_samples
from .criterion import Criterion

VARIANTS = ("paper", "code")


def mgd(
    student: Float[Tensor, "batch channels h w"],
    teacher: Float[Tensor, "batch channels h w"],
    alpha: float = 7e-5,
) -> Float[Tensor, " batch"]:
    r"""Squared error of the generated map, summed over channels and places, per sample.

    $$\alpha \sum_{c,k} \big( T - \mathcal{G}(f(S) \odot M) \big)_{ck}^2$$

    where `student` is $\mathcal{G}(f(S) \odot M)$: the student's map, aligned to the teacher's
    channels, masked, and completed by a generator.

    References:
        Yang et al., *Masked Generative Distillation*, 2022, https://arxiv.org/abs/2205.01529,
        section 3.
    """
    check_same_shape(student, teacher)
    student, teacher = in_full_precision(student, teacher)
    return alpha * (teacher - student).square().flatten(1).sum(dim=1)


class MGD(Criterion):
    r"""Mean of [`mgd`][] over the samples that count, with a trained generator.

    The generator is a 3x3 convolution, ReLU, and another one. Where the numbers of channels differ
    a trained 1x1 convolution aligns the student's; the larger map is averaged down to the smaller.

    Masks are drawn as dropout does, from torch's generator, in training only: in evaluation
    nothing is masked, and the value is the same each time.

    Args:
        alpha: weight; the paper takes 7e-5 for classification, 2e-5 for detection and segmentation.
        ratio: share that is masked; 0.15 for classification, 0.65 for detection, 0.75 for
            segmentation.
        variant: `paper` masks places, through all channels; `code` masks whole channels, as the
            authors' program for classification does (theirs for detection masks places).
    """

    align: nn.Module | None
    generator: nn.Module | None

    def __init__(self, alpha: float = 7e-5, ratio: float = 0.15, variant: str = "paper"):
        super().__init__()
        check_positive("alpha", alpha)
        check_share("ratio", ratio)
        check_choice("variant", variant, VARIANTS)
        self.alpha, self.ratio, self.variant = alpha, ratio, variant
        self.register_module("align", None)
        self.register_module("generator", None)

    def prepare(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> None:
        """Build the alignment and the generator for as many channels as these have."""
        if self.generator is not None:
            return
        check_maps("MGD", student, teacher)
        narrow, wide = student.shape[1], teacher.shape[1]
        if narrow != wide:
            self.align = fitted(self, nn.Conv2d(narrow, wide, 1), student)
        first, second = (nn.Conv2d(wide, wide, 3, padding=1) for _ in range(2))
        self.generator = fitted(self, nn.Sequential(first, nn.ReLU(), second), student)

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true."""
        check_maps("MGD", student, teacher)
        prepared(self, self.generator)
        assert self.generator is not None
        student, teacher = same_places(*counted_samples(mask, student, teacher))
        if self.align is not None:
            student = apply(self.align, student)
        if self.training:
            batch, channels, *places = student.shape
            shape = (batch, 1, *places) if self.variant == "paper" else (batch, channels, 1, 1)
            hidden = torch.rand(shape, device=student.device) < self.ratio
            student = student.masked_fill(hidden, 0.0)
        return masked_mean(mgd(apply(self.generator, student), teacher, self.alpha))

    def extra_repr(self) -> str:  # noqa: D102
        return f"alpha={self.alpha}, ratio={self.ratio}, variant={self.variant!r}"
