"""Whether a term teaches the student anything."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.compilation import gradients_before_step
from ..models.source import Source
from .normalisation import count, rows_of
from .term import Term


def check_gradient(
    name: str,
    term: Term,
    loss: Tensor,
    parameters: Sequence[Tensor],
    values: Mapping[Source, Any] | None = None,
) -> None:
    """Refuse a term that is not finite, or from which the student would learn nothing.

    Args:
        name: of the term.
        term: itself.
        loss: its value on one batch, with its graph.
        parameters: the student's trainable parameters.
        values: what it was given, to tell a term that is 0 here from one that always is.
    """
    if not torch.isfinite(loss):
        raise ValueError(
            f"Term {name!r} is {loss.item()} on the first batch. Look for NaN or infinity "
            "in the logits of student and teacher, and for a temperature too small."
        )
    reached: list[Tensor] = []
    moved = False
    if loss.requires_grad:
        # Those next to the output first: one that is moved is enough, and they cost little.
        for some in (parameters[-2:], parameters):
            found = gradients_before_step(loss, some)
            reached = [g for g in found if g is not None]
            moved = any(bool(g.count_nonzero()) for g in reached)
            if moved:
                break
    if not moved and reached and loss.item() == 0:
        moved = values is None or _moves_elsewhere(term, values)
    if not moved:
        raise ValueError(
            f"Term {name!r} has a positive weight but gives the student no gradient: it "
            "would be logged and never learnt from. Does one of its inputs come from the "
            "student, through layers that are trained, and without detach()? Is a weight "
            "within it 0?"
        )


def _moves_elsewhere(term: Term, values: Mapping[Source, Any]) -> bool:
    """Whether a term that is 0 gives a gradient once the student's tensors are others.

    A student that equals its teacher, or rows without labels, are no reason to refuse a term.
    """
    if not count([term], values, rows_of(values)).any():
        return True

    def other(value: Any) -> Any:
        if isinstance(value, list):
            return [other(v) for v in value]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        noise = torch.randn_like(value) * (value.detach().std(correction=0) + 1.0)
        return (value.detach() + noise).requires_grad_()

    changed = {s: other(v) if s.role == "student" else v for s, v in values.items()}
    leaves: list[Any] = []
    for source, value in changed.items():
        if source.role == "student":
            leaves += value if isinstance(value, list) else [value]
    leaves = [v for v in leaves if isinstance(v, Tensor) and v.requires_grad]
    loss = term(changed)
    if not leaves or not loss.requires_grad:
        return False
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return any(g is not None and bool(g.count_nonzero()) for g in found)
