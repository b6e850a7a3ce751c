"""Parts of a criterion that are trained: built when the sizes are known, run in full precision."""

from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import nn, Tensor

from ._check import in_full_precision, without_autocast

Part = TypeVar("Part", bound=nn.Module)


def fitted(criterion: nn.Module, part: Part, like: Tensor) -> Part:
    """The part on the device of a tensor, in its precision, float32 at least, and in the mode."""
    (like,) = in_full_precision(like)
    return part.to(like.device, like.dtype).train(criterion.training)


def check_prepared(criterion: nn.Module, part: Any) -> None:
    """Refuse to run without the parts, which nobody would train if they were built only now."""
    if part is None:
        raise ValueError(
            f"{type(criterion).__name__} has parts of its own to train, which are not built yet: "
            "call prepare(student, teacher) with tensors of one batch before the optimizer is made."
        )


def apply(part: nn.Module, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """What the part makes of `x`, in the part's own precision whatever autocast says."""
    with without_autocast(x):
        (found,) = in_full_precision(part(x.to(next(part.parameters()).dtype)))
    return found


def learns(criterion: nn.Module) -> bool:
    """Whether this forward is part of the training, so that what it sees may be kept."""
    return criterion.training and torch.is_grad_enabled()
