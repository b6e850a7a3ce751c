"""The rows of all processes, for criteria that compare samples with each other."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor


def gather_rows(rows: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "all_rows ..."]:
    """The rows of every process, in the order of the ranks; each may have another number of them.

    Gradients flow to this process's own rows, and are multiplied by the number of processes: DDP
    takes the average of all, which then is the gradient of one process with all rows. Every rank
    must call it equally often, which holds in training alone: see [`learns`][].
    """
    return rows if ranks() == 1 else _Gather.apply(rows)  # type: ignore[no-any-return]


def ranks() -> int:
    """How many processes train together."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        world, rank = dist.get_world_size(), dist.get_rank()
        count = torch.tensor([rows.shape[0]], device=rows.device)
        counts = [torch.zeros_like(count) for _ in range(world)]
        dist.all_gather(counts, count)
        sizes = [int(c) for c in counts]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        found = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(found, padded)
        ctx.start, ctx.size, ctx.world = sum(sizes[:rank]), sizes[rank], world
        return torch.cat([f[:size] for f, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0][ctx.start : ctx.start + ctx.size] * ctx.world
