"""Maps of a convolution and tokens of a transformer, made alike so that they can be compared."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import nn, Tensor

# So many tokens come before those of patches: none, a class token, one of distillation beside it
# (DeiT), or 4 or 8 registers without and with a class token (DINOv2).
EXTRA = (0, 1, 2, 4, 5, 8, 9)
SHAPES = "maps (rows, channels, height, width) and tokens (rows, tokens, width)"


class TokensAsMap(nn.Module):
    """Tokens of patches as a map, row by row from the top left; the first ones are left out.

    Args:
        extra: how many tokens come first that are no patch: class token, registers.
        height: of the map, in patches.
        width: the same.
    """

    def __init__(self, extra: int, height: int, width: int):
        super().__init__()
        self.extra, self.height, self.width = extra, height, width

    def forward(self, tokens: Float[Tensor, "rows tokens c"]) -> Float[Tensor, "rows c h w"]:
        """Map (rows, width of a token, height, width)."""
        patches = tokens[:, self.extra :].transpose(1, 2)
        return patches.unflatten(2, (self.height, self.width))

    def extra_repr(self) -> str:  # noqa: D102
        return f"extra={self.extra}, height={self.height}, width={self.width}"


class Resized(nn.Module):
    """A map made as large as another one.

    Where it gets smaller it is pooled, each value the mean of all that fall into it, since
    interpolation would read some of them and skip others. Where it gets larger it is interpolated
    bilinearly between the middles of the values, since pooling would only repeat them.

    Args:
        height: of what comes out.
        width: the same.
    """

    def __init__(self, height: int, width: int):
        super().__init__()
        self.size = (height, width)

    def forward(self, values: Float[Tensor, "rows c h w"]) -> Float[Tensor, "rows c h2 w2"]:
        """The same channels in another size."""
        there = values.shape[-2:]
        smaller = (min(there[0], self.size[0]), min(there[1], self.size[1]))
        if smaller != there:
            values = F.adaptive_avg_pool2d(values, smaller)
        if smaller != self.size:
            values = F.interpolate(values, self.size, mode="bilinear", align_corners=False)
        return values

    def extra_repr(self) -> str:  # noqa: D102
        return f"size={self.size}"


@dataclass(frozen=True)
class Maps:
    """The adapter that makes a map of the student and one of the teacher alike; `adapter="map"`.

    Either may be a map (rows, channels, height, width), as of a convolution, or tokens (rows,
    tokens, width), as of a vision transformer. Tokens become a map without the class token and
    registers, which come first. The student's map is resized (`Resized`) to the teacher's
    height and width, and where the channels differ a trained 1x1 convolution (FitNets, Romero et
    al., 2015, https://arxiv.org/abs/1412.6550) makes them as many. The criterion is given two maps
    (rows, channels of the teacher, height, width).

    Args:
        student_extra: how many tokens of the student come before those of its patches; by default
            as few as models have (0, 1, 2, 4, 5, 8 or 9) that leave a map of the same height to
            width as the other one, or a square.
        teacher_extra: the same of the teacher.
    """

    student_extra: int | None = None
    teacher_extra: int | None = None

    def build(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, nn.Module]:
        """What the student's tensor goes through, and what the teacher's, which trains nothing.

        Raises:
            ValueError: for tensors that are neither, and tokens that fill no map.
        """
        for tensor in (student, teacher):
            if tensor.dim() not in (3, 4):
                raise ValueError(
                    f"adapter=map compares {SHAPES}, and the tensors of student and teacher have "
                    f"shapes {tuple(student.shape)} and {tuple(teacher.shape)}. Name other layers."
                )
        both = (student, teacher)
        like = next((tuple(t.shape[2:]) for t in both if t.dim() == 4), (1, 1))
        of_student = _as_map("student", student, self.student_extra, like)
        of_teacher = _as_map("teacher", teacher, self.teacher_extra, like)
        channels = of_student(student).shape[1]
        wanted, height, width = of_teacher(teacher).shape[1:]
        parts = [of_student, Resized(height, width)]
        if channels != wanted:
            parts.append(nn.Conv2d(channels, wanted, kernel_size=1))
        return nn.Sequential(*parts), of_teacher


def _as_map(role: str, tensor: Tensor, extra: int | None, like: tuple[int, ...]) -> nn.Module:
    if tensor.dim() == 4:
        return nn.Identity()
    tokens = tensor.shape[1]
    tried = EXTRA if extra is None else (extra,)
    for first in tried:
        count = tokens - first
        for height in range(1, count + 1):
            width, rest = divmod(count, height)
            if not rest and height * like[1] == width * like[0]:
                return TokensAsMap(first, height, width)
    without = f"without the first {extra}" if extra is not None else "also without the first ones"
    raise ValueError(
        f"adapter=map: the {role} has {tokens} tokens for each picture, and {without} they fill no "
        f"map whose height is to its width as {like[0]} to {like[1]}. Name another layer, or how "
        "many tokens are no patches: adapter={_target_: lightning_distill.objective.Maps, "
        f"{role}_extra: 1}}."
    )
