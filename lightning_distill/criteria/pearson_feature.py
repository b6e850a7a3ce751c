"""Pearson correlation of feature maps: PKD of detection, which looks past their scale."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._check import check_choice, check_same_shape, in_full_precision
from ._gather import gather_rows
from ._maps import check_maps
from ._parts import learns
from ._samples import counted_samples, Mask
from .criterion import Criterion

RESIZED = ("student", "teacher")


def pearson_feature(
    student: Float[Tensor, "batch _ ..."],
    teacher: Float[Tensor, "batch _ ..."],
) -> Float[Tensor, ""]:
    r"""Half of the mean squared difference of the standardised features.

    $$\frac{1}{2 C n} \sum_{ci} (\hat s_{ci} - \hat t_{ci})^2 = 1 - \frac1C \sum_c \rho(s_c, t_c)$$

    where each channel has mean 0 and variance 1 over all $n$ samples and places. mmrazor divides
    by the standard deviation of a sample, which gives $(n - 1) / n$ of this. A channel without
    spread counts as 0.

    References:
        Cao et al., *PKD: General Distillation Framework for Object Detectors via Pearson
        Correlation Coefficient*, 2022, https://arxiv.org/abs/2207.02039, section 3.
    """
    check_same_shape(student, teacher)
    units = []
    for x in in_full_precision(student, teacher):
        rows = x.transpose(0, 1).flatten(1)
        units.append(F.normalize(rows - rows.mean(dim=1, keepdim=True), dim=1))
    return (units[0] - units[1]).square().sum(dim=1).mean() / 2


class PearsonFeature(Criterion):
    """[`pearson_feature`][] of the samples that count.

    Args:
        resize: whose map is brought to the size of the other, bilinearly; the student's in
            mmrazor, which is the authors' program.
        gather: in training, standardise over the samples of all processes, not only those of one.
    """

    across_samples = True

    def __init__(self, resize: str = "student", gather: bool = False):
        super().__init__()
        check_choice("resize", resize, RESIZED)
        self.resize, self.gather = resize, gather

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Mask = None,
    ) -> Float[Tensor, ""]:
        """The value over the samples for which `mask` is true; 0 if there are none."""
        check_maps("PearsonFeature", student, teacher)
        student, teacher = in_full_precision(*counted_samples(mask, student, teacher))
        if self.resize == "student":
            student = _resized(student, teacher)
        else:
            teacher = _resized(teacher, student)
        if self.gather and learns(self):
            student, teacher = gather_rows(student), gather_rows(teacher)
        return 0.0 * student.sum() if len(student) == 0 else pearson_feature(student, teacher)

    def extra_repr(self) -> str:  # noqa: D102
        return f"resize={self.resize!r}"


def _resized(x: Tensor, like: Tensor) -> Tensor:
    size = like.shape[-2:]
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear")
