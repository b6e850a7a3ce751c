"""What a loss that is not finite came from: the batch, the student or the teacher."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from ..models.batch import batch_size, entries, LABELS, row_numbers, tensors


def rows_of(batch: Any) -> str:
    """The numbers that the rows of a batch have in the data, as a part of a message."""
    numbers = row_numbers(batch)
    return "" if numbers is None else f", rows {numbers.tolist()[:8]}"


def culprit(module: L.LightningModule, batch: Any, is_late: bool = False) -> str:
    """The first that is NaN or infinite of a batch and of what both models make of it.

    Both models run once more, with other random numbers. Negative infinity is what masks and
    a teacher's logits may hold, as of classes that it rules out.

    Args:
        module: in training.
        batch: as the module was given it.
        is_late: the student may have been changed by this very batch, and says nothing any more.
    """
    named = entries(batch) or {"inputs": batch}
    # Of a pair whose inputs have no names.
    if isinstance(batch, tuple | list) and len(batch) == 2 and list(named) == ["labels"]:
        named = {"inputs": batch[0], **named}
    for name, value in named.items():
        for tensor in tensors(value):
            found = _bad_rows(tensor, batch, may_rule_out=name not in LABELS)
            if found:
                return f"The batch's {name} is NaN or infinite in {found}. "
    try:
        trying, module.is_trying = getattr(module, "is_trying", False), True  # type: ignore[assignment]
        try:
            with torch.no_grad():
                values, _, _ = module.read_sources(batch, heads="skipped")  # type: ignore[operator]
        finally:
            module.is_trying = trying  # type: ignore[assignment]
    except Exception:
        # This only explains; what it explains is raised.
        return ""
    for role in ["teacher"] if is_late else ["teacher", "student"]:
        for source, value in values.items():
            if source.role == role and isinstance(value, Tensor):
                found = _bad_rows(value, batch, may_rule_out=role == "teacher")
                if found:
                    return f"{source} is NaN or infinite in {found}. "
    return ""


def _bad_rows(tensor: Tensor, batch: Any, may_rule_out: bool) -> str:
    """Which rows of a tensor are not finite; empty if all are, or those that are not may be so."""
    if not tensor.is_floating_point():
        return ""
    bad = ~torch.isfinite(tensor)
    if may_rule_out:
        bad &= tensor != -torch.inf
    if not bool(bad.any()):
        return ""
    rows = batch_size(batch)
    if tensor.dim() == 0 or tensor.shape[0] != rows:
        return "some of its values"
    places = bad.reshape(rows, -1).any(dim=1).nonzero().flatten()
    numbers = row_numbers(batch)
    if numbers is None or numbers.shape[0] != rows:
        return f"its rows {places.tolist()[:8]}, counted from 0 within the batch"
    return f"rows {numbers.to(places.device)[places].tolist()[:8]} of the data"
