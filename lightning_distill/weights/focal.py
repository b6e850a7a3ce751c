"""Focal: samples on which student and teacher differ count more."""

from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ..temperatures.flsw import flsw
from ._logits import check_logits


class Focal(nn.Module):
    r"""A weight per sample: $(1 - \cos(s, t))^\gamma$ of the logits, from 0 to $2^\gamma$.

    In the paper it makes a temperature for each sample, which is
    [`FLSW`][lightning_distill.temperatures.FLSW] here. That it weighs the loss, as in focal loss
    (Lin et al., 2017), is ours. No gradient flows through it.

    Args:
        gamma: how much the hardest samples stand out.

    Raises:
        ValueError: for a `gamma` that is not positive; when called, if a model's logits are
            missing, of one class, or of other classes than the other's.

    References:
        Wen, Lai and Qian, *Preparing Lessons: Improve Knowledge Distillation with Better
        Supervision*, 2019, https://arxiv.org/abs/1911.07471, section 3.3 ("focal loss style
        weights").
    """

    def __init__(self, gamma: float = 2.0):
        super().__init__()
        if not gamma > 0:
            raise ValueError(f"`gamma` must be positive, got {gamma}.")
        self.gamma = gamma

    def forward(
        self,
        student: Float[Tensor, "..."] | None,
        teacher: Float[Tensor, "..."] | None,
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """The weight of every sample (*batch), of logits (*batch, classes)."""
        student = check_logits("Focal", "student", student)
        teacher = check_logits("Focal", "teacher", teacher)
        if student.shape != teacher.shape:
            raise ValueError(
                "Focal compares logits of the same classes, got shapes "
                f"{tuple(student.shape)} and {tuple(teacher.shape)}."
            )
        return flsw(student, teacher, self.gamma)

    def extra_repr(self) -> str:  # noqa: D102
        return f"gamma={self.gamma}"
