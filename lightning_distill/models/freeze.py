"""A model that stays as it is, or a part of one."""

import logging
from collections.abc import Sequence

from torch import nn

from .source import nearest
from .submodules import submodules

log = logging.getLogger("lightning_distill")


def freeze(model: nn.Module) -> None:
    """Put a model into eval mode, and let none of its weights be trained; changed in place."""
    # Not by requires_grad_ of the module, which TorchScript refuses.
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.eval()


def freeze_parts(model: nn.Module, parts: str | Sequence[str] | None) -> None:
    """Freeze parts of a model: none of their weights is trained, and they are in eval mode.

    Weights that other parts have too, such as the embeddings of T5, are frozen for all.

    Args:
        model: changed in place.
        parts: paths of submodules, or their ends, as `encoder`; of several that end so, the
            outermost is meant. `None` freezes nothing.

    Raises:
        ValueError: for a part that there is not, or of which there are several.
    """
    for part in [parts] if isinstance(parts, str) else parts or ():
        path = _path_of(part, model)
        frozen = submodules(model)[path]
        freeze(frozen)
        own = {id(weight) for weight in frozen.parameters()}
        named = model.named_parameters(remove_duplicate=False)
        shared = [n for n, p in named if id(p) in own and not n.startswith(f"{path}.")]
        if shared:
            log.info(
                "student: %s is frozen, and so is what other parts share with it: %s",
                path,
                ", ".join(shared),
            )


def _path_of(part: str, model: nn.Module) -> str:
    names = [path for path in submodules(model) if path]
    found = [path for path in names if path == part or path.endswith(f".{part}")]
    outermost = min((path.count(".") for path in found), default=0)
    found = [path for path in found if path.count(".") == outermost]
    if not found:
        raise ValueError(
            f"student.freeze names {part!r}, and {type(model).__name__} has no such part. "
            f"{nearest(part, names)}"
        )
    if len(found) > 1:
        raise ValueError(
            f"student.freeze names {part!r}, and {type(model).__name__} has several such parts: "
            f"{', '.join(found)}. Name one or all of them by these paths."
        )
    return found[0]
