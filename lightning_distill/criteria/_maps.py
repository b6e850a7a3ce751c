"""Feature maps of two models, brought to one size."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._check import in_full_precision


def same_places(
    student: Float[Tensor, "batch _ _ _"],
    teacher: Float[Tensor, "batch _ _ _"],
    *,
    pool: Callable[..., Tensor] = F.adaptive_avg_pool2d,
) -> tuple[Float[Tensor, "batch _ h w"], Float[Tensor, "batch _ h w"]]:
    """Both in float32 at least, the larger pooled (averaged) down to the size of the smaller."""
    student, teacher = in_full_precision(student, teacher)
    height, width = (min(a, b) for a, b in zip(student.shape[-2:], teacher.shape[-2:], strict=True))

    def shrunk(x: Tensor) -> Tensor:
        same = tuple(x.shape[-2:]) == (height, width)
        return x if same else pool(x, (height, width))

    return shrunk(student), shrunk(teacher)


def check_maps(criterion: str, student: Tensor, teacher: Tensor) -> None:
    """Refuse what is no feature map, of which torch's own words would name no layer.

    Args:
        criterion: what an error calls it.
        student: the student's features.
        teacher: the teacher's.
    """
    for role, features in (("student", student), ("teacher", teacher)):
        if features.dim() != 4:
            raise ValueError(
                f"{criterion} compares feature maps (batch, channels, height, width), and the "
                f"{role}'s features have shape {tuple(features.shape)}. Name a layer that returns "
                "maps, or compare vectors and hidden states with Hint."
            )


def check_layers(criterion: str, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    """Refuse lists of maps whose consecutive pairs cannot be compared."""
    if len(student) != len(teacher) or len(student) < 2:
        raise ValueError(
            "student and teacher must be lists of equally many feature maps, two at least, got "
            f"{len(student)} and {len(teacher)}. In a term, name the layers of each with commas "
            "between them, and set mapping=together."
        )
    for own, of_teacher in zip(student, teacher, strict=True):
        check_maps(criterion, own, of_teacher)
    channels = [[x.shape[1] for x in maps] for maps in (student, teacher)]
    if channels[0] != channels[1]:
        raise ValueError(
            "student and teacher must have the same channels in each layer, got "
            f"{channels[0]} and {channels[1]}. Name layers of the same widths."
        )
