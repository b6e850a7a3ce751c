"""The parts of a model by the paths that they have without adapters around it."""

from typing import Any

from torch import nn

# What peft puts before the path of every part of a model that it wraps.
WRAPPED = "base_model.model."


def unwrapped(model: nn.Module) -> Any:
    """The model within the wrapper of peft, with its adapters; any other model as it is."""
    inner = getattr(model, "get_base_model", None)
    return inner() if callable(inner) else model


def submodules(model: nn.Module) -> dict[str, nn.Module]:
    """From path to part, in the order of the model; `""` is the model.

    A model within peft's wrapper has the paths that it had before.
    """
    return {**dict(unwrapped(model).named_modules()), "": model}
