"""Sums over the processes that train together."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def sum_over_ranks(trainer: Any, tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The sum over all processes, with one collective; every one of them must call it.

    That of Lightning's strategies waits at a barrier besides, and serves where torch's own process
    group does not, as on TPUs.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        total = tensor.detach().clone()
        torch.distributed.all_reduce(total)
        return total
    return trainer.strategy.reduce(tensor.clone(), reduce_op="sum")  # type: ignore[no-any-return]
