"""Compiled models whose layers can still be read, and whose weights keep their names."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from weakref import WeakSet

import torch
from torch import nn, Tensor

from .submodules import COMPILED

_compiled: "WeakSet[nn.Module]" = WeakSet()


def compile_in_place(model: nn.Module, backend: str = "inductor") -> None:
    """Compile a model with shapes that may vary; a second call does nothing.

    The first batch of each kind (training, evaluation, other layers that are read) waits for the
    compiler, which takes from seconds to minutes; the cache of torch shortens that for later runs.
    Unlike `torch.compile(model)`, this leaves the names of the weights as they are.

    Args:
        model: changed in place.
        backend: one that `torch.compile` knows.

    Raises:
        ValueError: if the default backend finds no compiler for this machine.
    """
    if model in _compiled:
        return
    if backend == "inductor" and not torch.cuda.is_available() and not _has_compiler():
        raise ValueError(
            "compile=true needs a C++ compiler on a machine without a GPU, and there is none: "
            "install g++, name one in the environment variable CXX, or set compile=false."
        )
    model.compile(dynamic=True, backend=backend)
    _compiled.add(model)


def is_compiled(model: nn.Module) -> bool:
    """Whether a model was compiled in place, or is what `torch.compile` makes of one."""
    # Not by its class: importing that takes seconds.
    return model in _compiled or dict(model.named_children()).keys() == {COMPILED}


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "c++", "clang++"))


@contextmanager
def readable() -> Iterator[None]:
    """While it lasts, what torch compiles can be read by hooks, and its graphs gone through twice.

    These settings of torch have no public name (torch 2.13); a test fails where they lose theirs.
    They hold for what runs within, and not for other compiled models of the process.
    """
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None:
        # Nothing is compiled in this process; importing it would take seconds.
        yield
        return
    hooks, graphs = _settings()
    if not (dynamo.config.skip_nnmodule_hook_guards or torch._functorch.config.donated_buffer):
        # Another call around this one has set them.
        yield
        return
    with hooks, graphs:
        yield


@cache
def _settings() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    import torch._functorch.config
    from torch._dynamo import config

    # Layers are read by hooks that come and go: without this the hooks of the first forward would
    # stay for ever. Gradients of single terms are taken before the step, which goes through a
    # graph twice.
    hooks = config.patch(skip_nnmodule_hook_guards=False)
    return hooks, torch._functorch.config.patch(donated_buffer=False)


def gradients_before_step(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of a loss whose graph the step goes through again, compiled or not.

    Args:
        loss: a number with a graph, which is kept.
        parameters: what to take the gradients of.

    Returns:
        One gradient for each, `None` for those that the loss does not depend on.
    """
    with readable():
        return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)


@contextmanager
def uncompiled() -> Iterator[None]:
    """While it lasts, compiled models run as they were before."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
