"""Parts of a criterion that are trained: built when the sizes are known, run in full precision."""

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import nn, Tensor

from ._check import in_full_precision, without_autocast

Part = TypeVar("Part", bound=nn.Module)


def fitted(criterion: nn.Module, part: Part, like: Tensor) -> Part:
    """The part on the device of a tensor, in its precision, float32 at least, and in the mode."""
    (like,) = in_full_precision(like)
    return part.to(like.device, like.dtype).train(criterion.training)


def prepared(criterion: nn.Module, part: Part | None) -> Part:
    """The part; refused if it is not built yet, as nobody would train one that is built now."""
    if part is None:
        raise ValueError(
            f"{type(criterion).__name__} has parts of its own to train, which are not built yet: "
            "call prepare(student, teacher) with tensors of one batch before the optimizer is made."
        )
    return part


def apply(part: nn.Module, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """What the part makes of `x`, in the part's own precision whatever autocast says."""
    dtype = next((p.dtype for p in part.parameters()), x.dtype)
    with without_autocast(x):
        (found,) = in_full_precision(part(x.to(dtype)))
    return found


def learns(criterion: nn.Module) -> bool:
    """Whether this forward is part of the training, so that what it sees may be kept."""
    return criterion.training and torch.is_grad_enabled()
