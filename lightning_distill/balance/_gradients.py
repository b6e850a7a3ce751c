"""The gradient that each term gives the student, in step on every rank."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.compilation import gradients_before_step


def gradients(
    losses: Float[Tensor, " terms"], parameters: Sequence[Tensor]
) -> Float[Tensor, "terms numbers"]:
    """The gradient of each loss over all parameters, in float32, the mean over the ranks."""
    found = []
    for loss in losses:
        each = gradients_before_step(loss, parameters)
        flat = [
            torch.zeros_like(p) if g is None else g for g, p in zip(each, parameters, strict=True)
        ]
        found.append(torch.cat([g.detach().float().flatten() for g in flat]))
    return mean_over_ranks(torch.stack(found))


def mean_over_ranks(tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The mean over all processes that train together; every rank must call it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    total = tensor.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
