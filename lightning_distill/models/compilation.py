"""Compiled models whose layers can still be read, and whose weights keep their names."""

import os
import shutil

import torch._dynamo.config
import torch._functorch.config
from torch import nn


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
    if getattr(model, "_compiled_call_impl", None) is not None:
        return
    if backend == "inductor" and not torch.cuda.is_available() and not _has_compiler():
        raise ValueError(
            "compile=true needs a C++ compiler on a machine without a GPU, and there is none: "
            "install g++, name one in the environment variable CXX, or set compile=false."
        )
    # Layers are read by hooks that come and go: without this the hooks of the first forward would
    # stay for ever.
    torch._dynamo.config.skip_nnmodule_hook_guards = False
    # Gradients of single terms are taken before the step, which goes through a graph twice.
    torch._functorch.config.donated_buffer = False
    model.compile(dynamic=True, backend=backend)


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "c++", "clang++"))
