"""What a model's forward takes, through whatever wrapper; a hint, for it need not be the truth."""

from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import torch
from torch import nn

from .submodules import innermost, of_forward, Parameters


@dataclass(frozen=True)
class Signature:
    """The arguments of a forward.

    Attributes:
        names: those that it takes by name, in order.
        positional: those of them that it takes by their place too.
        required: those without a default.
        takes_any: whether it takes further ones by name.
    """

    names: tuple[str, ...] = ()
    positional: tuple[str, ...] = ()
    required: frozenset[str] = frozenset()
    takes_any: bool = False


def signature(model: nn.Module) -> Signature:
    """What the forward of a model takes, or that of the model in its wrapper."""
    inner = innermost(model)
    if isinstance(inner, torch.jit.ScriptModule):
        return _of_script(inner)
    try:
        return _of_parameters(inner)
    except ValueError:
        return Signature(takes_any=True)


@of_forward
def _of_parameters(parameters: Parameters) -> Signature:
    named = [
        p for p in parameters if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    ]
    return Signature(
        names=tuple(p.name for p in named),
        positional=tuple(p.name for p in named if p.kind is Parameter.POSITIONAL_OR_KEYWORD),
        required=frozenset(p.name for p in named if p.default is Parameter.empty),
        takes_any=any(p.kind is Parameter.VAR_KEYWORD for p in parameters),
    )


def _of_script(model: Any) -> Signature:
    # The first is the module itself.
    arguments = model.forward.schema.arguments[1:]
    names = tuple(a.name for a in arguments)
    required = frozenset(a.name for a in arguments if not a.has_default_value())
    return Signature(names, names, required)


def input_names(model: nn.Module) -> list[str]:
    """The keywords that a model takes by name."""
    # A teacher that reads its answers from disk takes what the live one took.
    recorded_names = getattr(model, "input_names", None)
    return recorded_names if isinstance(recorded_names, list) else list(signature(model).names)


def accepts(model: nn.Module, argument: str) -> bool:
    """Whether `model.forward` takes a keyword of this name."""
    found = signature(model)
    # Hugging Face models of version 5 take options such as `output_hidden_states` by **kwargs.
    return argument in found.names or (found.takes_any and hasattr(innermost(model), "config"))
