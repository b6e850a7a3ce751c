"""Read the tensors that sources name, by forward hooks that exist only while the model runs."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn, Tensor

from .head import head_of, linear_head
from .source import Item, matching, nearest, OUTPUTS, Source
from .submodules import submodules, unwrapped, WRAPPED


def check_layers(model: nn.Module, sources: Iterable[Source]) -> None:
    """Refuse paths that the model does not have, before it runs."""
    names = list(submodules(model))
    for source in sources:
        if source.kind in OUTPUTS:
            continue
        for name in map(str.strip, source.name.split(",")):
            if not matching(name, names):
                inside = name.removeprefix(WRAPPED)
                wrapped = inside != name and bool(matching(inside, names))
                near = f"It is {inside!r} here." if wrapped else nearest(name, names)
                head = linear_head(model) if source.kind in ("head", "layer_input") else None
                if head is not None and not wrapped:
                    near = f"Its head is {head!r}. {near}"
                raise ValueError(
                    f"The {source.role} ({type(unwrapped(model)).__name__}) has no submodule "
                    f"{name!r}. {near} `lightning-distill job=inspect` lists them all."
                )


def accepts(model: nn.Module, argument: str) -> bool:
    """Whether `model.forward` takes a keyword of this name."""
    parameters = inspect.signature(unwrapped(model).forward).parameters
    # Hugging Face models of version 5 take `output_hidden_states` through **kwargs.
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return argument in parameters or (takes_any and hasattr(unwrapped(model), "config"))


def forward_options(model: nn.Module, sources: Iterable[Source]) -> dict[str, bool]:
    """Keywords that make a Hugging Face model return what the sources name."""
    options = {}
    for name in ("hidden_states", "attentions"):
        if any(s.kind == "output" and s.name == name for s in sources):
            option = f"output_{name}"
            if accepts(model, option):
                options[option] = True
    return options


@contextmanager
def capture(model: nn.Module, sources: Iterable[Source]) -> Iterator[dict[str, Any]]:
    """Collect what the named submodules return and are given while the model runs.

    Yields:
        A dict from `layer:path` and `layer_input:path` to the value, filled by the forward.
    """
    found: dict[str, Any] = {}
    handles = []

    def output_hook(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found[f"layer:{path}"] = output

        return hook

    def input_hook(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            values = [*args, *kwargs.values()]
            found[f"layer_input:{path}"] = values[0] if len(values) == 1 else values

        return hook

    wanted = {(s.kind, s.name) for s in sources if s.kind not in OUTPUTS}
    modules = submodules(model) if wanted else {}
    hooked = {(kind, path) for kind, name in wanted for path in matching(name, modules)}
    for kind, path in hooked:
        if kind == "head":
            found[f"head:{path}"] = head_of(model, path)
        elif kind == "layer":
            handles.append(modules[path].register_forward_hook(output_hook(path)))
        else:
            handles.append(
                modules[path].register_forward_pre_hook(input_hook(path), with_kwargs=True)
            )
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
        # In the order of the modules, not that in which the model ran them.
        order = {path: i for i, path in enumerate(modules)}
        ran = sorted(found, key=lambda key: order[key.partition(":")[2]])
        for key in ran:
            found[key] = found.pop(key)


def entry(container: Any, name: str, source: Source) -> Any:
    """A named entry of what a model returned, or of a batch."""
    if isinstance(container, Tensor):
        if name == "logits":
            return container
        raise ValueError(
            f"{source} is not there: the {source.role} returns one tensor, "
            f"which is called {source.role}.logits."
        )
    if isinstance(container, Mapping):
        if container.get(name) is not None:
            return container[name]
        keys = [str(k) for k, v in container.items() if v is not None]
        why = ""
        if name in ("hidden_states", "attentions"):
            why = (
                " The model does not return them; name a submodule instead, "
                f"as in {source.role}.layer:PATH."
            )
        raise ValueError(
            f"{source} is not there: the {source.role} has no {name!r}. {nearest(name, keys)}{why}"
        )
    if isinstance(container, tuple | list):
        if name == "logits":
            return container[0]
        if name == "labels" and source.role == "batch" and len(container) == 2:
            return container[1]
    if hasattr(container, name):
        return getattr(container, name)
    raise ValueError(
        f"{source} is not there: the {source.role} is a {type(container).__name__} "
        f"without {name!r}."
    )


def pick(value: Any, item: Item | None, source: Source) -> Any:
    """An item of a tuple, list or dict."""
    if item is None:
        return value
    if isinstance(item, str):
        if isinstance(value, Mapping) and item in value:
            return value[item]
        if hasattr(value, item):
            return getattr(value, item)
        keys = [str(k) for k in value] if isinstance(value, Mapping) else []
        raise ValueError(f"{source} has no item {item!r}. {nearest(item, keys) if keys else ''}")
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if not isinstance(value, tuple | list):
        raise ValueError(
            f"{source} asks for an item, but finds a {type(value).__name__}; "
            "leave the brackets out."
        )
    if isinstance(item, tuple):
        return list(value[slice(*item)])
    if not -len(value) <= item < len(value):
        raise ValueError(
            f"{source} is out of range: there are {len(value)}, numbered 0 to {len(value) - 1}."
        )
    return value[item]


def read(source: Source, outputs: Any, captured: Mapping[str, Any]) -> Any:
    """The tensor (or the list of tensors) that a source names.

    Args:
        source: what to read.
        outputs: what the model returned; for the role `batch`, the batch.
        captured: what [`capture`][] collected during that forward.
    """
    absent = not isinstance(outputs, Mapping) or source.name not in outputs
    if absent and (source.optional or _is_mask_of_packed(source, outputs)):
        return None
    if source.kind in OUTPUTS:
        value = outputs
        for part in source.name.split("."):
            value = entry(value, part, source)
        value = pick(value, source.item, source)
    elif source.names_many:
        paths = [k.partition(":") for k in captured]
        names = matching(source.name, [path for kind, _, path in paths if kind == source.kind])
        value = [
            tensor_of(pick(captured[f"{source.kind}:{n}"], source.item, source), source)
            for n in names
        ]
    else:
        key = f"{source.kind}:{source.name}"
        if key not in captured:
            raise ValueError(
                f"{source} was not reached: the {source.role} has this submodule "
                "but did not run it in this forward."
            )
        if source.kind == "head":
            return captured[key]
        value = pick(captured[key], source.item, source)
    if source.process is not None:
        return source.process(value)
    return value if source.is_many else tensor_of(value, source)


def _is_mask_of_packed(source: Source, batch: Any) -> bool:
    """Whether a mask is asked of rows that are packed: these have none, as all tokens count."""
    packed = isinstance(batch, Mapping) and "position_ids" in batch
    return packed and str(source) == "batch.attention_mask"


def tensor_of(value: Any, source: Source) -> Tensor:
    """`value` as a tensor; blocks that return a tuple mean its first tensor."""
    if isinstance(value, Mapping) and "logits" in value and source.kind == "layer":
        value = value["logits"]
    if isinstance(value, tuple | list) and value and isinstance(value[0], Tensor):
        value = value[0]
    if isinstance(value, Mapping) and len(value) > 0:
        first = next(iter(value.values()))
        value = first if isinstance(first, Tensor) else value
    if not isinstance(value, torch.Tensor):
        raise ValueError(
            f"{source} is a {type(value).__name__}, not a tensor; "
            f"choose a part of it by index or key, as in {source}[0]."
        )
    return value
