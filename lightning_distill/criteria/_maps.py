"""Feature maps of two models, brought to one size."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._check import in_full_precision


def same_places(
    student: Float[Tensor, "batch _ _ _"], teacher: Float[Tensor, "batch _ _ _"]
) -> tuple[Float[Tensor, "batch _ h w"], Float[Tensor, "batch _ h w"]]:
    """Both in float32 at least, the larger averaged down to the size of the smaller."""
    student, teacher = in_full_precision(student, teacher)
    height, width = (min(a, b) for a, b in zip(student.shape[-2:], teacher.shape[-2:], strict=True))

    def shrunk(x: Tensor) -> Tensor:
        same = tuple(x.shape[-2:]) == (height, width)
        return x if same else F.adaptive_avg_pool2d(x, (height, width))

    return shrunk(student), shrunk(teacher)
