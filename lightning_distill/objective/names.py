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
    # Metrics may be called as their class, or with a hyphen.
    plain = name.isidentifier() if kind == "term" else bool(name) and not {*name} & {".", "/"}
    if not plain or name == "loss":
        raise ValueError(
            f"A {kind}'s name must be a plain word other than 'loss', which is the sum of all "
            f"terms, got {name!r}. Write f1_macro for f1.macro."
        )
    if name in _TAKEN:
        raise ValueError(
            f"A {kind} cannot be called {name!r}, which is the name of a member of "
            f"torch.nn.ModuleDict. Call it {name}_{kind}, for example."
        )
