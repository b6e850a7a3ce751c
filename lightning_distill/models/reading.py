"""The tensor that a source names: in what a model returned, in a batch, in what was captured."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import batch as batches
from .pooling import read_pooled
from .source import Item, matching, nearest, OF_LAYERS, OUTPUTS, Source

# Entries that only some batches have, and what brings them.
_TWO_TOKENIZERS = (
    "It is there where a causal language model learns from texts and its teacher has another "
    "tokenizer. Two that read the same tokens are compared token by token, as with "
    "criteria=[fused_linear_divergence]; other models by their answers, as with "
    "criteria=[soft_target]."
)
_OF_DATA = "It comes with {}, which says where it is in the data."
BROUGHT_BY = {
    "spans": _TWO_TOKENIZERS,
    "teacher": _TWO_TOKENIZERS,
    "place": "It is there where a row has several texts, as with data=embedding_files.",
    "scores": _OF_DATA.format("data=embedding_files data.scores=COLUMN"),
    "vectors": _OF_DATA.format("data=embedding_files data.vectors=COLUMN"),
    "row_labels": _OF_DATA.format("data=token_files data.row_label=COLUMN"),
}


def entry(container: Any, name: str, source: Source) -> Any:
    """A named entry of what a model returned, or of a batch."""
    if source.role == "batch":
        return _batch_entry(container, name, source)
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
        if name.endswith(OF_LAYERS):
            why = (
                " The model does not return them; name a submodule instead, "
                f"as in {source.role}.layer:PATH."
            )
        raise ValueError(
            f"{source} is not there: the {source.role} has no {name!r}. {nearest(name, keys)}{why}"
        )
    if hasattr(container, name):
        return getattr(container, name)
    if isinstance(container, tuple | list) and name == "logits":
        return logits_of_tuple(container, source.role)
    raise ValueError(
        f"{source} is not there: the {source.role} is a {type(container).__name__} "
        f"without {name!r}."
    )


def _batch_entry(batch: Any, name: str, source: Source) -> Any:
    found = batches.labels_of(batch) if name == "labels" else batches.entry(batch, name)
    if found is not None:
        return found
    names = [name for name, value in batches.entries(batch).items() if value is not None]
    listed = nearest(name, names) if names else f"It has {batches.describe(batch)}."
    without = (
        "Where the criterion can do without it, leave the input out, as in "
        "criteria.NAME.inputs.mask=null."
    )
    raise ValueError(
        f"{source} is not there: the batch has no {name!r}. {listed} "
        f"{BROUGHT_BY.get(name, without)}"
    )


def logits_of_tuple(outputs: Sequence[Any], role: str) -> Tensor:
    """The logits of a model that returns a tuple: its first entry, if nothing speaks against it.

    Raises:
        ValueError: if the first cannot be logits, or another may be them.
    """
    first = outputs[0] if len(outputs) else None
    way_out = (
        f'Return a dict, as in {{"logits": ...}}, or override {role}_forward of '
        "DistillationModule so that it does; for metrics alone, override predictions."
    )
    if not isinstance(first, Tensor) or first.dim() < 1 or not first.is_floating_point():
        what = f"shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(
            f"The {role} returns a {type(outputs).__name__} whose first entry ({what}) is no "
            f"logits. {way_out}"
        )
    shapes = [
        tuple(o.shape)
        for o in outputs
        if isinstance(o, Tensor) and o.is_floating_point() and o.shape[:-1] == first.shape[:-1]
    ]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"The {role} returns a {type(outputs).__name__} with entries of shapes "
            f"{', '.join(map(str, shapes))}, and it is not clear which of them are the logits. "
            f"{way_out}"
        )
    return first


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
    may_be_absent = source.optional or _is_mask_of_packed(source, outputs)
    if source.role == "batch" and may_be_absent and _is_absent(source, outputs):
        return None
    value: Any
    if source.kind == "pooled":
        value = read_pooled(source, outputs, captured)
    elif source.kind in OUTPUTS:
        value = outputs
        # Without a name it is the whole batch, of which `process` makes something.
        for part in source.name.split(".") if source.name else ():
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


def _is_absent(source: Source, batch: Any) -> bool:
    for part in source.name.split("."):
        batch = batches.entry(batch, part)
    return batch is None


def _is_mask_of_packed(source: Source, batch: Any) -> bool:
    """Whether a mask is asked of rows that are packed: these have none, as all tokens count."""
    asked = str(source) == "batch.attention_mask"
    return asked and batches.entry(batch, "position_ids") is not None


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
