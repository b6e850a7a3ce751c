"""Names under which terms and metrics are logged."""

from torch import nn

# Its own attributes cannot be names of what it holds.
_TAKEN = frozenset(dir(nn.ModuleDict()))


def check_name(kind: str, name: str) -> None:
    """Refuse a name that torch, a configuration or the log could not hold.

    Args:
        kind: `term` or `metric`.
        name: under which it is logged, as `val/NAME`.
    """
    if name == "loss":
        raise ValueError(
            f"A {kind} cannot be called 'loss', the name of the sum of all terms. Give it another "
            "name."
        )
    if not name or "." in name or "/" in name or (kind == "term" and not name.isidentifier()):
        raise ValueError(
            f"A {kind}'s name must be a plain word other than 'loss', got {name!r}. Write "
            "f1_macro for f1.macro."
        )
    if name in _TAKEN:
        raise ValueError(
            f"A {kind} cannot be called {name!r}, which is the name of a member of "
            f"torch.nn.ModuleDict. Call it {name}_{kind}, for example."
        )
