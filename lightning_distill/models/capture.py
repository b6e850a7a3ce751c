"""Read the tensors that sources name, by forward hooks that exist only while the model runs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .compilation import readable
from .copies import copied
from .head import head_of, linear_head
from .pooling import note_tokens
from .reading import read
from .signature import accepts
from .source import matching, nearest, OF_LAYERS, OUTPUTS, Source
from .submodules import PREFIXES, submodules, unwrapped


def check_layers(model: nn.Module, sources: Iterable[Source]) -> None:
    """Refuse paths that the model does not have, before it runs."""
    names = list(submodules(model))
    for source in sources:
        if source.kind in OUTPUTS or source.kind == "pooled":
            continue
        if isinstance(unwrapped(model), torch.jit.ScriptModule):
            raise ValueError(
                f"The {source.role} is TorchScript, which runs no hooks, so that {source} cannot "
                "be read. Give the model that it was made of, or compare what it returns, as in "
                f"{source.role}.logits."
            )
        for name in map(str.strip, source.name.split(",")):
            if not matching(name, names):
                inside = _without_prefixes(name)
                wrapped = inside != name and bool(matching(inside, names))
                near = f"It is {inside!r} here." if wrapped else nearest(name, names)
                head = linear_head(model) if source.kind in ("head", "layer_input") else None
                if head is not None and not wrapped:
                    near = f"Its head is {head!r}. {near}"
                raise ValueError(
                    f"The {source.role} ({type(unwrapped(model)).__name__}) has no submodule "
                    f"{name!r}. {near} `lightning-distill job=inspect` lists them all."
                )


def _without_prefixes(path: str) -> str:
    while prefix := next((p for p in PREFIXES if path.startswith(p)), None):
        path = path.removeprefix(prefix)
    return path


def forward_options(model: nn.Module, sources: Iterable[Source]) -> dict[str, bool]:
    """Keywords that make a Hugging Face model return what the sources name."""
    options = {}
    sources = list(sources)
    for name in OF_LAYERS:
        # Those of an encoder-decoder are of one part, as decoder_hidden_states or cross_attentions.
        if any(s.kind == "output" and s.name.endswith(name) for s in sources):
            option = f"output_{name}"
            if accepts(model, option):
                options[option] = True
    return options


@contextmanager
def capture(
    model: nn.Module, sources: Iterable[Source], copies: bool = True
) -> Iterator[dict[str, Any]]:
    """Collect what the named submodules return and are given while the model runs.

    Tensors are copied when a layer is reached: a model may go on to change them in place, as
    residual blocks do that add to what a batch norm returned, and apply the next activation. The
    gradient goes through the copy.

    Args:
        model: whose forward runs meanwhile.
        sources: of this model.
        copies: false where only shapes are of interest.

    Yields:
        A dict from `layer:path` and `layer_input:path` to the value, filled by the forward; where
        vectors are pooled, also what `note_tokens` finds.
    """
    found: dict[str, Any] = {}
    handles: list[Any] = []
    sources = [source for source in sources if source.kind not in OUTPUTS]
    if any(source.kind == "pooled" for source in sources):
        handles += note_tokens(model, found)
        sources = [source for source in sources if source.kind != "pooled"]
    modules = submodules(model) if sources else {}
    wanted: dict[tuple[str, str], list[Source]] = {}
    for source in sources:
        for path in matching(source.name, modules):
            wanted.setdefault((source.kind, path), []).append(source)

    def output_hook(key: str, readers: list[Source]) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found[key] = copied(output, readers) if copies else output

        return hook

    def input_hook(key: str, readers: list[Source]) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            values = [*args, *kwargs.values()]
            value = values[0] if len(values) == 1 else values
            found[key] = copied(value, readers) if copies else value

        return hook

    for (kind, path), readers in wanted.items():
        part, key = modules[path], f"{kind}:{path}"
        if kind == "head":
            found[key] = head_of(model, path)
        elif kind == "layer":
            handles.append(part.register_forward_hook(output_hook(key, readers)))
        else:
            hook = input_hook(key, readers)
            handles.append(part.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        with readable():
            yield found
    finally:
        for handle in handles:
            handle.remove()
        # In the order of the modules, not that in which the model ran them.
        order = {path: i for i, path in enumerate(modules)}
        ran = sorted(found, key=lambda key: order.get(key.partition(":")[2], -1))
        for key in ran:
            found[key] = found.pop(key)


__all__ = ["capture", "check_layers", "forward_options", "read"]
