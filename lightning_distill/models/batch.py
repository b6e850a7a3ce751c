"""What a batch holds: the one reader of batches, whatever their class is.

A batch is one of

    a mapping of any class                  {"input_ids": ..., "labels": ...}, BatchEncoding
    a dataclass, or another object          its attributes are the entries
    a pair                                  (inputs, labels); inputs a tensor, a tuple or a mapping
    a longer tuple                          by the names of the forward's arguments, see `named`
    a tensor                                inputs alone
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# What an entry with labels may be called, the usual name first.
LABELS = ("labels", "label")


class NamedTuple(tuple):  # type: ignore[type-arg]
    """A tuple of which it is known how the forward's arguments are called; unpacks as before."""

    names: tuple[str, ...]

    def __new__(cls, values: Iterable[Any], names: Iterable[str]) -> "NamedTuple":
        """A tuple of these values, with a name for each."""
        batch = super().__new__(cls, values)
        batch.names = tuple(names)
        return batch


def is_pair(batch: Any) -> bool:
    """Whether a batch is (inputs, labels)."""
    return isinstance(batch, tuple | list) and len(batch) == 2 and not _fields(batch)


def entries(batch: Any) -> dict[str, Any]:
    """The entries of a batch by name; of a pair the labels, and the inputs if they have names."""
    if isinstance(batch, Mapping):
        return dict(batch)
    if is_pair(batch):
        inputs, labels = batch
        named_inputs = {} if isinstance(inputs, Tensor | tuple | list) else entries(inputs)
        return {**named_inputs, "labels": labels}
    return {name: _held(batch, name) for name in _fields(batch)}


def entry(batch: Any, name: str) -> Any:
    """The entry of a batch that has this name; `None` if there is none."""
    if isinstance(batch, Mapping):
        return batch.get(name)
    if is_pair(batch):
        return entries(batch).get(name)
    if name in _fields(batch):
        return _held(batch, name)
    # A property of an object is none of its fields.
    value = getattr(batch, name, None) if _has_attributes(batch) else None
    return None if callable(value) else value


def labels_of(batch: Any) -> Any:
    """The labels of a batch: its entry `labels` or `label`, the second of a pair, or none."""
    found = (entry(batch, name) for name in LABELS)
    return next((labels for labels in found if labels is not None), None)


def row_numbers(batch: Any) -> Tensor | None:
    """The numbers that the rows of a batch have in the data, if it says them."""
    numbers = entry(batch, "row")
    return numbers if isinstance(numbers, Tensor) else None


def teacher_entries(batch: Any) -> Mapping[str, Any] | None:
    """The entries that are for the teacher alone, where its tokens are its own."""
    found = entry(batch, "teacher")
    return found if isinstance(found, Mapping) else None


def counted_rows(batch: Any) -> Tensor | None:
    """Which rows are not repeats that only even out the ranks; `None` if all."""
    numbers = row_numbers(batch)
    if numbers is None or bool((numbers >= 0).all()):
        return None
    return numbers >= 0


def row_count(batch: Any) -> int:
    """How many rows a batch has, of which each may have several texts."""
    numbers = row_numbers(batch)
    return batch_size(batch) if numbers is None else len(numbers[numbers >= 0].unique())


def at_students_tokens(batch: Any, values: Tensor) -> Tensor:
    """The teacher's values at the tokens that the student's are compared with.

    Where both models read tokens of their own, a batch may say by `teacher_place`, int64
    `(rows, student tokens)`, at which of the teacher's tokens begins what a token of the student
    begins, such as a word; what is said of tokens that do not count has no meaning.

    Args:
        batch: as the data loader gives it.
        values: of the teacher, `(rows, teacher tokens, ...)`.

    Returns:
        Shape `(rows, student tokens, ...)`; the values themselves if the batch says nothing.
    """
    places = entry(batch, "teacher_place")
    if places is None:
        return values
    rows = torch.arange(len(places), device=values.device)
    return values[rows[:, None], places.to(values.device)]


def pairs_tokens(batch: Any) -> bool:
    """Whether a batch says which of the teacher's own tokens the student's are compared with."""
    return entry(batch, "teacher_place") is not None


def batch_size(batch: Any) -> int:
    """How many rows a batch has; 1 if it holds nothing that has rows."""
    for tensor in tensors(batch):
        if tensor.dim():
            return tensor.shape[0]
    return next((len(words) for words in _words(batch)), 1)


def tensors(batch: Any) -> Iterator[Tensor]:
    """All tensors that a batch holds, nested ones too."""
    if isinstance(batch, Tensor):
        yield batch
    else:
        for part in _parts(batch):
            yield from tensors(part)


def take_rows(value: Any, rows: Tensor | None) -> Any:
    """Those rows of a tensor, or of each in a list or mapping, that count.

    Args:
        value: a tensor `(rows, ...)`, or a list or mapping of such; anything else stays.
        rows: true for those to take, `(rows,)`; `None` for all.
    """
    if rows is None or value is None:
        return value
    if isinstance(value, list):
        return [take_rows(v, rows) for v in value]
    if isinstance(value, Mapping):
        return {name: take_rows(v, rows) for name, v in value.items()}
    if not isinstance(value, Tensor):
        return value
    return value[rows] if value.dim() and value.shape[0] == rows.shape[0] else value


def first_rows(batch: Any, count: int = 1) -> Any:
    """A batch of the first rows alone; what has no rows, such as words or a number, stays."""
    rows = batch_size(batch)

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[:count] if value.dim() and value.shape[0] == rows else value
        per_row = isinstance(value, list | tuple) and len(value) == rows
        return value[:count] if per_row and all(isinstance(v, str) for v in value) else value

    return map_entries(batch, cut)


def repeated_rows(batch: Any, count: int) -> Any:
    """A batch of `count` rows: the first ones, again and again if there are fewer.

    What has no rows, such as a number, stays.
    """
    rows = batch_size(batch)
    numbers = [i % rows for i in range(count)]

    def taken(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[numbers] if value.dim() and value.shape[0] == rows else value
        per_row = isinstance(value, list | tuple) and len(value) == rows
        if per_row and all(isinstance(v, str) for v in value):
            return type(value)(value[i] for i in numbers)
        return value

    return map_entries(batch, taken)


def next_rows(batch: Any) -> Any:
    """A batch in which each row is the one after it, and the last is the first.

    What has no rows, such as a number, stays; a batch of one row is what it was.
    """
    rows = batch_size(batch)

    def turned(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.roll(-1, 0) if value.dim() and value.shape[0] == rows else value
        per_row = isinstance(value, list | tuple) and len(value) == rows
        if per_row and all(isinstance(v, str) for v in value):
            return type(value)([*value[1:], *value[:1]])
        return value

    return map_entries(batch, turned)


def with_entries(batch: Any, changes: Mapping[str, Any]) -> Any:
    """The batch with entries added or replaced; the batch itself stays as it is."""
    if isinstance(batch, Mapping) or _is_like_a_mapping(batch):
        return {**entries(batch), **changes}
    if isinstance(batch, NamedTuple) or is_pair(batch):
        if not changes.keys() <= entries(batch).keys():
            raise ValueError(
                f"A batch that is a tuple takes no further entries ({', '.join(changes)}): let the "
                'collate function return a dict, as in {"input_ids": ..., "labels": ...}.'
            )
        if isinstance(batch, NamedTuple):
            return NamedTuple(
                [changes.get(n, v) for n, v in zip(batch.names, batch, strict=True)], batch.names
            )
        inputs, labels = batch
        own = {name: value for name, value in changes.items() if name != "labels"}
        pair = (with_entries(inputs, own) if own else inputs, changes.get("labels", labels))
        return pair if isinstance(batch, tuple) else list(pair)
    if isinstance(batch, tuple):
        changed_entries = {**entries(batch), **changes}
        known = changes.keys() <= set(_fields(batch))
        return type(batch)(**changed_entries) if known else changed_entries
    changed = copy.copy(batch)
    for name, value in changes.items():
        # Frozen dataclasses refuse setattr, and this is a copy.
        object.__setattr__(changed, name, value)
    return changed


def map_entries(batch: Any, function: Callable[[Any], Any]) -> Any:
    """The batch with a function applied to all that it holds, nested mappings and tuples too."""
    if isinstance(batch, Mapping):
        return {name: map_entries(value, function) for name, value in batch.items()}
    if isinstance(batch, NamedTuple):
        return NamedTuple([map_entries(v, function) for v in batch], batch.names)
    if isinstance(batch, tuple | list) and not all(isinstance(v, str) for v in batch):
        values = [map_entries(value, function) for value in batch]
        if isinstance(batch, list):
            return values
        return type(batch)(*values) if _fields(batch) else tuple(values)
    if not isinstance(batch, Tensor) and _fields(batch):
        found = {name: map_entries(v, function) for name, v in entries(batch).items()}
        return with_entries(batch, found)
    return function(batch)


def move(batch: Any, device: torch.device | str) -> Any:
    """The batch with its tensors on a device."""
    return map_entries(batch, lambda v: v.to(device) if isinstance(v, Tensor) else v)


def describe(batch: Any) -> str:
    """The names of a batch's entries, or what it is, for an error message."""
    names = [str(name) for name in entries(batch)]
    if names and not is_pair(batch):
        return ", ".join(names)
    if isinstance(batch, tuple | list):
        return f"no names: it is a {type(batch).__name__} of {len(batch)}"
    return f"no names: it is a {type(batch).__name__}"


def _held(batch: Any, name: str) -> Any:
    """What an object with names holds under one."""
    if isinstance(batch, NamedTuple):
        return batch[batch.names.index(name)]
    return batch[name] if _is_like_a_mapping(batch) else getattr(batch, name)


def _fields(batch: Any) -> list[str]:
    """The names under which a batch that is no mapping holds something."""
    if isinstance(batch, NamedTuple):
        return list(batch.names)
    if isinstance(batch, tuple):
        return list(getattr(batch, "_fields", ()))
    if not _has_attributes(batch):
        return []
    if dataclasses.is_dataclass(batch):
        return [field.name for field in dataclasses.fields(batch)]
    if _is_like_a_mapping(batch):
        return [str(name) for name in batch.keys()]  # noqa: SIM118 - it may not be iterable
    slots = [s for cls in type(batch).__mro__ for s in getattr(cls, "__slots__", ())]
    found = [*getattr(batch, "__dict__", ()), *(s for s in slots if hasattr(batch, s))]
    return [name for name in found if not name.startswith("_")]


def _has_attributes(batch: Any) -> bool:
    plain = Tensor | Mapping | str | bytes | int | float | complex | list | set | frozenset | None
    return not isinstance(batch, plain) and not callable(batch)


def _is_like_a_mapping(batch: Any) -> bool:
    """Whether it has keys and items and is none of Python's, such as a graph of torch_geometric."""
    return callable(getattr(batch, "keys", None)) and hasattr(batch, "__getitem__")


def _parts(batch: Any) -> Iterator[Any]:
    """What a batch holds directly; nothing of what is no container."""
    if isinstance(batch, Mapping):
        yield from batch.values()
    elif isinstance(batch, tuple | list):
        yield from batch
    else:
        yield from (_held(batch, name) for name in _fields(batch))


def _words(batch: Any) -> Iterator[Sequence[str]]:
    """Lists of words, such as the names of the rows."""
    if isinstance(batch, tuple | list) and batch and all(isinstance(v, str) for v in batch):
        yield batch
    else:
        for part in _parts(batch):
            yield from _words(part)
