"""The answers to a batch, read from disk."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache import AnswerStore, EncodedRows, row_ids, token_count
from ..models.forward import PREDICTED
from ..models.head import Head
from ..models.source import Source
from .answers import names_of
from .refusals import not_kept

WHY = (
    "The cache knows exactly the inputs that it was made with: was it made from these texts, with "
    "this tokenizer and max_length, and with this teacher's inputs? Augmentation that draws anew "
    "in each epoch makes inputs that no cache can hold; use one that is keyed (data.views=N). "
    "Whether the index is damaged, job=cache mode=verify says."
)


def read_answers(
    store: AnswerStore, inputs: Any, names: Sequence[str], numbers: Tensor | None = None
) -> dict[str, Tensor]:
    """Answers to a model's inputs by name, on the inputs' device, padded as they are.

    Raises:
        ValueError: if a row is not there.
    """
    return Rows(store, inputs, numbers).values(names)


class Rows:
    """The rows of a batch in a cache, or on their way into one.

    Args:
        store: that holds them.
        inputs: the teacher's.
        numbers: of the rows in the data, for an error.
        ids: of the rows, where they are known.

    Raises:
        ValueError: if a row is not there.
    """

    def __init__(
        self,
        store: AnswerStore | EncodedRows,
        inputs: Any,
        numbers: Tensor | None = None,
        ids: np.ndarray | None = None,
    ):
        self.store, self.ids = store, row_ids(inputs) if ids is None else ids
        self.places = store.find(self.ids)
        self.device, self.tokens = _device(inputs), token_count(inputs)
        missing = np.flatnonzero(self.places < 0)
        if len(missing):
            which = (
                "" if numbers is None else f" (the first is row {int(numbers[int(missing[0])])})"
            )
            raise ValueError(
                f"{len(missing)} of the {len(self.ids)} rows of this batch are not in the cache "
                f"{store.folder}{which}. {WHY}"
            )

    def values(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Answers by name, on the inputs' device, padded as they are."""
        found, lengths = self.store.read(self.ids, self.places, names)
        return {name: self._placed(name, value, lengths) for name, value in found.items()}

    def encoded(self, name: str) -> dict[str, Any]:
        """The fields that the encoding of an answer wrote, with its settings and `vocabulary`."""
        found, lengths = self.store.read_encoded(self.ids, self.places, [name])
        answer = self.store.answers[name]
        fields = {f: self._placed(name, v, lengths) for f, v in found[name].items()}
        return {**answer.encoding.settings(), "vocabulary": answer.shape[-1], **fields}

    def _placed(self, name: str, value: Tensor, lengths: Sequence[int]) -> Tensor:
        if self.store.answers[name].per_token:
            assert self.tokens is not None
            value = padded(value, lengths, self.tokens)
        return value.to(self.device, non_blocking=True)


class Outputs(MutableMapping):  # type: ignore[type-arg]
    """What a model returned, of which each entry is made where it is asked for."""

    # Of no named types: who checks them looks at an entry, which then is made.

    def __init__(self, made: Mapping[str, Callable[[], Tensor]]):
        self._made, self._found = dict(made), dict[str, Tensor]()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._found:
            with torch.no_grad():
                self._found[name] = self._made[name]()
        return self._found[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._made[name], self._found[name] = lambda: value, value

    def __delitem__(self, name: str) -> None:
        del self._made[name]
        self._found.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._made

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


def recall_sources(
    store: AnswerStore | EncodedRows,
    inputs: Any,
    sources: Sequence[Source],
    head: Callable[[str, torch.device], Head],
    numbers: Tensor | None = None,
    ids: np.ndarray | None = None,
) -> tuple[Outputs, dict[Source, Any]]:
    """Outputs and the tensor of each source, as a live teacher gives them.

    Args:
        store: that holds the rows.
        inputs: the teacher's.
        sources: of the teacher.
        head: from a path and a device to the teacher's head.
        numbers: of the rows in the data, for an error.
        ids: of the rows, where they are known.
    """
    rows = Rows(store, inputs, numbers, ids)
    of_teacher = store.about["teacher"]
    heads = {source: head(source.name, rows.device) for source in sources if source.kind == "head"}
    wanted = {source: names_of(source, of_teacher) for source in sources if source not in heads}
    for source, names in wanted.items():
        if not source.is_many and names[0] not in store.answers:
            raise not_kept(store, source)
    asked = {n for s, names in wanted.items() if s.kind != "sparse" for n in names}
    found = rows.values(sorted(asked & store.answers.keys()))
    values: dict[Source, Any] = dict(heads)
    types = {s.name: h.weight.dtype for s, h in heads.items()}
    for source, own in wanted.items():
        if source.kind == "sparse":
            values[source] = rows.encoded(own[0])
        elif source.is_many:
            values[source] = _with_stand_ins(store, source, own, found)
        else:
            value = found[own[0]]
            if source.kind == "layer_input" and source.name in types:
                # A head takes what it was given by the live teacher.
                value = value.to(types[source.name])
            values[source] = value if source.process is None else source.process(value)
    return outputs_of(rows, head), values


def outputs_of(rows: Rows, head: Callable[[str, torch.device], Head]) -> Outputs:
    """The logits, as they were kept or as they follow from a head."""
    store = rows.store
    kept = [name for name in PREDICTED if name in store.answers]
    if kept:
        return Outputs({name: partial(_kept, rows, name) for name in kept})
    paths = [path for path in store.head_names if f"layer_input:{path}" in store.answers]
    if not paths:
        return Outputs({})
    return Outputs({"logits": lambda: _logits(rows, paths[0], head(paths[0], rows.device))})


def _kept(rows: Rows, name: str) -> Tensor:
    return rows.values([name])[name]


def _logits(rows: Rows, path: str, head: Head) -> Tensor:
    (hidden,) = rows.values([f"layer_input:{path}"]).values()
    return head(hidden.to(head.weight.dtype)).float()


def _with_stand_ins(
    store: AnswerStore | EncodedRows,
    source: Source,
    names: Sequence[str],
    found: Mapping[str, Tensor],
) -> list[Tensor]:
    """A tensor for each name: zeros where it was not kept, since no pair of layers reads it."""
    kept = [found[n] for n in names if n in found]
    if not kept:
        raise not_kept(store, source)
    return [found[n] if n in found else torch.zeros_like(kept[0]) for n in names]


def padded(flat: Tensor, lengths: Sequence[int], tokens: int) -> Tensor:
    """The tokens of all rows, one after another, as (rows, tokens, ...) with zeros behind."""
    found = flat.new_zeros(len(lengths), tokens, *flat.shape[1:])
    inside = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    found[inside] = flat
    return found


def _device(inputs: Any) -> torch.device:
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    values = (inputs,) if isinstance(inputs, Tensor) else values
    return next(v.device for v in values if isinstance(v, Tensor))
