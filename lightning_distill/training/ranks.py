"""The processes that train together, and sums over them."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def ranks() -> int:
    """How many processes there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def rank() -> int:
    """The number of this process."""
    return torch.distributed.get_rank() if ranks() > 1 else 0


def sum_over_ranks(trainer: Any, tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The sum over all processes, with one collective; every one of them must call it.

    That of Lightning's strategies waits at a barrier besides, and serves where torch's own process
    group does not, as on TPUs.
    """
    if ranks() > 1:
        total = tensor.detach().clone()
        torch.distributed.all_reduce(total)
        return total
    return trainer.strategy.reduce(tensor.clone(), reduce_op="sum")  # type: ignore[no-any-return]
