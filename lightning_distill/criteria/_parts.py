"""Parts of criteria that are trained, and what all of them share."""

import math

import torch
from jaxtyping import Float
from torch import nn, Tensor

from ._check import without_autocast


def prepared(part: nn.Module | None, criterion: nn.Module) -> nn.Module:
    """The part, refused if it was not built yet."""
    if part is None:
        name = type(criterion).__name__
        raise ValueError(
            f"{name} has parts to train that are not built yet: call prepare(student, teacher) "
            "with tensors of one batch before the optimizer is made."
        )
    return part


def applied(part: nn.Module, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """What the part makes of `x`, in the precision of `x` whatever that of its parameters."""
    held = [*part.named_parameters(), *part.named_buffers()]
    with without_autocast(x):
        if all(t.dtype == x.dtype or not t.is_floating_point() for _, t in held):
            return part(x)  # type: ignore[no-any-return]
        cast = {name: t.to(x.dtype) if t.is_floating_point() else t for name, t in held}
        made = torch.func.functional_call(part, cast, (x,))
    with torch.no_grad():
        for name, buffer in part.named_buffers():
            buffer.copy_(cast[name])
    return made  # type: ignore[no-any-return]


class Connector(nn.Module):
    """From the student's channels to the teacher's: a 1x1 convolution and batch norm.

    While it learns, batch norm takes the statistics of the batch, of this process alone; else,
    and for a single value per channel, which has no variance, the running ones.
    """

    def __init__(self, student: int, teacher: int):
        super().__init__()
        self.convolution = nn.Conv2d(student, teacher, 1, bias=False)
        self.norm = nn.BatchNorm2d(teacher)
        nn.init.normal_(self.convolution.weight, std=math.sqrt(2 / teacher))

    def forward(
        self, maps: Float[Tensor, "batch student h w"]
    ) -> Float[Tensor, "batch teacher h w"]:
        """Maps with as many channels as the teacher's."""
        maps, norm = self.convolution(maps), self.norm
        several = maps.numel() > maps.shape[1]
        if self.training and torch.is_grad_enabled() and several:
            return norm(maps)  # type: ignore[no-any-return]
        return nn.functional.batch_norm(
            maps, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
