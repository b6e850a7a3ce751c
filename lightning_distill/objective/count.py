"""How much counts in a term."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..models.source import Source


def count_of(
    term: Any, values: Mapping[Source, Any], rows: int | None = None, of_labels: bool = False
) -> Tensor:
    """How much counts in a term: its labels, mask and weight, or rows if it reads none.

    With `of_labels`, in the cross-entropy that a term has within itself (`label_weight`).
    """
    inputs = getattr(term, "inputs", {})
    names = ("labels", "mask", "weight")
    found = {name: values.get(inputs[name]) for name in names if name in inputs}
    labels, mask, weight = (found.get(name) for name in names)
    criterion: Any = getattr(term, "criterion", None)
    if isinstance(labels, Tensor) and getattr(criterion, "shift_labels", False):
        labels = torch.nn.functional.pad(labels[..., 1:], (0, 1), value=-100)
    if hasattr(criterion, "counted"):
        # It is a mean over something else than rows or tokens, such as spans of text.
        given = {n: values[source] for n, source in inputs.items() if source.role == "batch"}
        counted = criterion.counted(**given)
    else:
        # Of what makes its own logits, a mask alone says which tokens are compared.
        by_mask = isinstance(mask, Tensor) and hasattr(criterion, "label_weight")
        by_mask = by_mask and not (of_labels and criterion.label_weight)
        counted = _counted(None if by_mask else labels, mask)
    # A mean by weights is a mean over their sum, unless the criterion divides by how many count.
    by_weight = getattr(criterion, "normalize", True)
    if isinstance(weight, Tensor) and weight.dim() and by_weight:
        heavy = weight.float()
        if counted is None:
            return heavy.sum()
        if counted.shape[: heavy.dim()] == heavy.shape:
            # One weight per row, for all of its tokens.
            heavy = heavy.reshape(*heavy.shape, *[1] * (counted.dim() - heavy.dim()))
            return torch.where(counted, heavy, 0.0).sum()
    if counted is not None:
        return counted.sum().float()
    for source in term.sources():
        value = values.get(source)
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, Tensor) and first.dim():
            return torch.tensor(first.shape[0], dtype=torch.float32, device=first.device)
    return torch.tensor(1 if rows is None else rows, dtype=torch.float32)


def _counted(labels: Any, mask: Any) -> Tensor | None:
    counted = None
    if isinstance(labels, Tensor):
        counted = labels != -100
        if labels.is_floating_point():
            counted = counted & ~labels.isnan()
            # Several labels of one row, of which one is unknown.
            counted = counted if labels.dim() < 2 else counted.flatten(1).all(1)
    if isinstance(mask, Tensor):
        if counted is None or counted.shape != mask.shape:
            return mask != 0
        return counted & (mask != 0)
    return counted
