"""Logits to make weights of."""

from torch import Tensor


def check_logits(weight: str, role: str, logits: Tensor | None) -> Tensor:
    """The logits; refused if they are missing, or of one class, of which there is no choice."""
    if logits is None:
        raise ValueError(
            f"{weight} looks at the {role}'s logits; add weight_{role}={role}.logits to the "
            "term's inputs."
        )
    if logits.dim() == 0 or logits.shape[-1] < 2:
        raise ValueError(
            f"{weight} needs logits of two classes or more, got the {role}'s of shape "
            f"{tuple(logits.shape)}."
        )
    return logits
