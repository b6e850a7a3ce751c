"""What a layer returned, kept as it was when the layer returned it."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from torch import Tensor

from .source import Source


def copied(value: Any, readers: Iterable[Source]) -> Any:
    """A value of the same kind with copies of the tensors that sources may read of it.

    Copies are part of the graph: the gradient goes through them. Each costs as much memory as its
    tensor.

    Args:
        value: what a layer returned or was given.
        readers: the sources of this layer.
    """
    items = {source.item for source in readers}
    if isinstance(value, tuple | list) and all(isinstance(item, int) for item in items):
        places = {item % len(value) for item in items if isinstance(item, int) and value}
        parts = [_copied(v) if i in places else v for i, v in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    return _copied(value)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, MutableMapping):
        mapping = copy.copy(value)
        for name, part in value.items():
            mapping[name] = _copied(part)
        return mapping
    if isinstance(value, Mapping):
        return {name: _copied(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_copied(part) for part in value]
    if isinstance(value, tuple):
        parts = [_copied(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(changed, field.name, _copied(getattr(value, field.name)))
        return changed
    return value
