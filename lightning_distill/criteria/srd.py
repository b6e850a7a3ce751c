"""Simple recipe distillation: a linear projector, batch norm, and a log-sum distance."""

from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._batch_norm import BatchNorm
from ._check import check_same_shape, in_full_precision
from ._parts import apply, fitted, learns, prepared
from ._rows import feature_rows
from ._samples import sample_vectors
from .criterion import Criterion

# The paper's logarithm has no value at a perfect match.
FLOOR = 1e-12


def srd(
    student: Float[Tensor, "batch features"],
    teacher: Float[Tensor, "batch features"],
    power: float = 4.0,
) -> Float[Tensor, ""]:
    r"""Logarithm of the summed powers of the differences, over samples and features.

    $$\log \Big( 10^{-12} + \sum_{bi} |s_{bi} - t_{bi}|^\alpha \Big)$$

    where $s$ is the projected student and both are batch-normed. The constant is ours: at a perfect
    match the value is $\log 10^{-12} = -27.6$ with a gradient of 0, where the authors' program
    gives $-\infty$ and NaN.

    References:
        Miles and Mikolajczyk, *Understanding the Role of the Projector in Knowledge Distillation*,
        2023, https://arxiv.org/abs/2303.11098, section 3.
    """
    _check_power(power)
    check_same_shape(student, teacher)
    student, teacher = in_full_precision(student, teacher)
    return ((student - teacher).abs().pow(power).sum() + FLOOR).log()


def _check_power(power: float) -> None:
    if not power >= 1:
        raise ValueError(f"`power` must be at least 1, got {power}: below, equal features differ.")


class SRD(Criterion):
    """[`srd`][] of the samples that count, with a trained linear projector.

    Both sides go through a batch norm without weights (`eps` 1e-4, as in the authors' program),
    which in evaluation uses the running statistics. The authors weigh it by 2, beside KL of the
    logits at temperature 1, which is a term of its own here.

    Args:
        power: of the differences; higher looks at the largest alone.
        gather: in training, take the statistics and the sum over the samples of all processes, not
            only those of one.
    """

    across_samples = True

    projector: nn.Module | None
    student_norm: nn.Module | None
    teacher_norm: nn.Module | None

    def __init__(self, power: float = 4.0, gather: bool = False):
        super().__init__()
        _check_power(power)
        self.power, self.gather = power, gather
        for name in ("projector", "student_norm", "teacher_norm"):
            self.register_module(name, None)

    def prepare(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> None:
        """Build projector and norms for features as wide as these."""
        if self.projector is not None:
            return
        narrow, wide = student.shape[1], teacher.shape[1]
        self.projector = fitted(self, nn.Linear(narrow, wide), student)
        self.student_norm, self.teacher_norm = (
            fitted(self, BatchNorm(wide, eps=1e-4, affine=False), student) for _ in range(2)
        )

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The value over the samples for which `mask` is true; 0 if there are none.

        Features are vectors (batch, features), or maps, which are averaged over the places.
        """
        prepared(self, self.projector)
        assert self.projector and self.student_norm and self.teacher_norm
        student, teacher = sample_vectors(student, "student"), sample_vectors(teacher, "teacher")
        student, teacher = feature_rows(student, teacher, mask, self.gather and learns(self))
        projected = apply(self.projector, student)
        if len(projected) == 0:
            return projected.sum()
        return srd(self.student_norm(projected), self.teacher_norm(teacher), self.power)

    def extra_repr(self) -> str:  # noqa: D102
        return f"power={self.power}"
