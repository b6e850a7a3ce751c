"""The parts of a model by the paths that they have without a wrapper around it."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType, MethodType
from typing import Any, TypeVar

from torch import nn

from .peft_parts import adapted_model, is_adapted, WRAPPED

# What wrappers put before the path of every part of the model within. That of torch.compile is in
# the names of its weights too, and so in everybody's checkpoints.
COMPILED = "_orig_mod"
PREFIXES = (WRAPPED, f"{COMPILED}.", "module.")
Parameters = tuple[inspect.Parameter, ...]
Answer = TypeVar("Answer")


def unwrapped(model: Any) -> Any:
    """The model within peft, torch.compile, DataParallel and DistributedDataParallel.

    It has its adapters in it. Any other model is returned as it is.
    """
    while True:
        if is_adapted(model):
            model = adapted_model(model)
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(model, nn.Module) and _parts(model).keys() == {COMPILED}:
            model = _parts(model)[COMPILED]
        else:
            return model


def innermost(model: Any) -> Any:
    """As [`unwrapped`][], and through wrappers of one's own that hand on whatever they are given.

    These have `forward(*args, **kwargs)` and one part; their own signature says nothing.
    """
    while True:
        model = unwrapped(model)
        if not isinstance(model, nn.Module) or not _hands_on_everything(model):
            return model
        parts = _parts(model)
        if len(parts) != 1:
            return model
        model = next(iter(parts.values()))


def _parts(model: nn.Module) -> dict[str, nn.Module]:
    return dict(model.named_children())


def of_forward(question: Callable[[Parameters], Answer]) -> Callable[[nn.Module], Answer]:
    """Let a question about the parameters of a forward, `self` apart, be asked of a module.

    Asked several times in every step, and slow to find out: each method is looked at once.

    What is made raises a `ValueError` for a forward without a signature, as of a traced module.
    """

    @lru_cache(maxsize=256)
    def of_method(function: FunctionType) -> Answer:
        return question(parameters(MethodType(function, object())))

    def parameters(forward: Callable[..., Any]) -> Parameters:
        return tuple(inspect.signature(forward).parameters.values())

    def ask(model: nn.Module) -> Answer:
        forward = model.forward
        if inspect.ismethod(forward) and inspect.isfunction(forward.__func__):
            return of_method(forward.__func__)
        return question(parameters(forward))

    return ask


@of_forward
def _takes_everything(parameters: Parameters) -> bool:
    kinds = {p.kind for p in parameters}
    return bool(kinds) and kinds <= {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }


def _hands_on_everything(model: nn.Module) -> bool:
    try:
        return _takes_everything(model)
    except ValueError:
        return False


def submodules(model: nn.Module) -> dict[str, nn.Module]:
    """From path to part, in the order of the model; `""` is the model.

    A model within a wrapper has the paths that it had before.
    """
    return {**dict(unwrapped(model).named_modules()), "": model}


def named_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters, in the order of the model.

    A model within a wrapper has the names that it had before, and what the wrapper adds those that
    it has there. A parameter that several parts share has several names.
    """
    inner = list(unwrapped(model).named_parameters(remove_duplicate=False))
    own = {id(parameter) for _, parameter in inner}
    return inner + [(name, p) for name, p in model.named_parameters() if id(p) not in own]
