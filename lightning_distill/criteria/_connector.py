"""A trained map from the student's channels to the teacher's."""

import math

from jaxtyping import Float
from torch import nn, Tensor

from ._batch_norm import BatchNorm


class Connector(nn.Module):
    """From the student's channels to the teacher's: a 1x1 convolution and batch norm."""

    def __init__(self, student: int, teacher: int):
        super().__init__()
        self.convolution = nn.Conv2d(student, teacher, 1, bias=False)
        self.norm = BatchNorm(teacher)
        nn.init.normal_(self.convolution.weight, std=math.sqrt(2 / teacher))

    def forward(
        self, maps: Float[Tensor, "batch student h w"]
    ) -> Float[Tensor, "batch teacher h w"]:
        """Maps with as many channels as the teacher's."""
        return self.norm(self.convolution(maps))  # type: ignore[no-any-return]
