"""Heads: what makes logits of hidden states."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._check import in_full_precision
from ._fused_linear import Side


def parts(head: Any) -> tuple[Tensor, Tensor | None, float, float | None]:
    """Weight, bias, scale and softcap of a head."""
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise ValueError(
            "A head must have a `weight` of shape (vocabulary, width), as an nn.Linear has, got "
            f"{type(head).__name__}"
            + (f" with shape {tuple(weight.shape)}." if isinstance(weight, Tensor) else ".")
        )
    scale, softcap = getattr(head, "scale", None), getattr(head, "softcap", None)
    return weight, getattr(head, "bias", None), 1.0 if scale is None else float(scale), softcap


def side_of(role: str, hidden: Tensor, head: Any, shared: int, lower: torch.dtype | None) -> Side:
    """Hidden states and the first rows of a head, in one type, without graph."""
    weight, bias, scale, softcap = parts(head)
    if hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"The {role}'s hidden states are {hidden.shape[-1]} wide and its head takes "
            f"{weight.shape[1]}. Are they what the head is given ({role}.layer_input:PATH)?"
        )
    tensors = [hidden.detach(), weight.detach()[:shared]]
    tensors += [] if bias is None else [bias.detach()[:shared]]
    if lower is not None and all(t.dtype != torch.float64 for t in tensors):
        tensors = [t.to(lower) for t in tensors]
    kinds = {t.dtype for t in tensors}
    if len(kinds) > 1:
        raise ValueError(
            f"The {role}'s hidden states and head must have one type, got "
            f"{', '.join(sorted(map(str, kinds)))}. Convert one, or use autocast."
        )
    hidden, weight = tensors[:2]
    return Side(hidden, weight, None if bias is None else tensors[2], scale, softcap)


def whole_logits(
    hidden: Float[Tensor, "... width"], head: Any, shared: int
) -> Float[Tensor, "... shared"]:
    """The logits of the first `shared` classes of a head, as autograd follows them."""
    weight, bias, scale, softcap = parts(head)
    logits = F.linear(hidden, weight[:shared], None if bias is None else bias[:shared])
    (logits,) = in_full_precision(logits)
    logits = logits * scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)
