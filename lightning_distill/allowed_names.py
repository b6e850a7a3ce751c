"""What a `_target_` of a configuration may name, as far as that is told without an import."""

import re
from pathlib import Path
from typing import Any

OURS = "lightning_distill"
# Of which a `_target_` may name something, besides the user's own.
PACKAGES = (OURS, "torch", "torchmetrics", "lightning", "transformers", "peft")
ALLOWED = (
    f"A configuration may name what {OURS} offers; classes of torch.nn, torch.optim and "
    "torchmetrics; trainers, callbacks, loggers, strategies and profilers of lightning; models, "
    "configurations, tokenizers and schedules of transformers; configurations of peft; and "
    "classes and functions of files in the folder where the command is typed."
)


def check_packages(node: Any, path: tuple[str, ...] = ()) -> None:
    """Refuse a `_target_` of a package that none may be taken from; the rest takes an import.

    Args:
        node: a configuration as plain dictionaries and lists.
        path: of the keys above it.

    Raises:
        ValueError: for the first.
    """
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        here = (*path, str(key))
        if isinstance(value, dict | list):
            check_packages(value, here)
        elif key == "_target_" and isinstance(value, str) and "." in value and "${" not in value:
            top = value.partition(".")[0]
            if top not in PACKAGES and not any(Path(p).exists() for p in (top, f"{top}.py")):
                raise refusal(value, ".".join(here), value)


def check_names(added: Any) -> tuple[str, ...]:
    """The names of `allow_targets`.

    Raises:
        ValueError: if it is no list of dotted names.
    """
    names = [added] if isinstance(added, str) else list(added or ())
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w.]*", name):
            raise ValueError(
                "`allow_targets` must be a list of packages, modules or names in them, as in "
                f"allow_targets=[my_package], got {name!r}."
            )
    return tuple(names)


def refusal(target: Any, where: str, found: str) -> ValueError:
    """What is said of a name that a configuration may not hold.

    Args:
        target: the name.
        where: the key of the configuration.
        found: where what it names was defined.
    """
    known = "" if found == target else f", which is {found},"
    return ValueError(
        f"{where}={target}{known} may not be named by a configuration. {ALLOWED} If you know what "
        f"it does and trust it, type allow_targets=[{found}]; in a file that does not count."
    )
