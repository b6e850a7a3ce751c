"""A teacher that is not there: its answers are read from disk."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn, Tensor

from ..cache import AnswerStore, row_ids
from ..features import Source
from .answers import answer_name, padded, singles

WHY = (
    "The cache knows exactly the inputs that it was made with: was it made from these texts, with "
    "this tokenizer and max_length, and with this teacher's inputs? Augmentation that draws anew "
    "in each epoch makes inputs that no cache can hold; use one that is keyed (data.views=N). "
    "Whether the index is damaged, job=cache mode=verify says."
)


class CachedTeacher(nn.Module):
    """Stands for a teacher whose answers were written before; none of its weights is in memory.

    A row is found by what the teacher would be given for it, whatever the order, the batch, the
    padding, the epoch or the rank. Give it to a [`DistillationModule`][] in the teacher's place.

    Args:
        folder: that `lightning-distill job=cache` or `CachingTeacher` wrote.

    Raises:
        FileNotFoundError: if there is no cache.
        DamagedCacheError: if a file is not what was written; also for a row, when it is read.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        self.store = AnswerStore(folder)
        self.about: dict[str, Any] = self.store.about["teacher"]
        self.fingerprint: str = self.about["fingerprint"]
        self.input_names: list[str] = self.about["inputs"]
        self.module_names: list[str] = self.about["modules"]
        names = self.about["labels"]
        labels = None if names is None else {int(k): v for k, v in names.items()}
        self.config = SimpleNamespace(id2label=labels)

    def forward(self, *args: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """The logits of these rows, (rows, classes) or (rows, tokens, classes), in float32."""
        given: Any = args or inputs
        return {"logits": recall(self.store, given, ["logits"])["logits"]}

    def recall(
        self, module: Any, batch: Any, sources: Sequence[Source], keep: bool = False
    ) -> tuple[dict[str, Tensor], dict[Source, Any]]:
        """What `module` would get if it ran the teacher on `batch`: outputs, and each source.

        Raises:
            ValueError: if a row or a source is not in the cache, and why that may be.
        """
        return recall_sources(self.store, module.teacher_inputs(batch), sources, row_numbers(batch))

    def check(self, terms: Mapping[str, Any]) -> None:
        """Refuse terms that ask for what is not in the cache, or would compare its padding.

        Args:
            terms: those of an objective.
        """
        for name, term in terms.items():
            for source in term.sources():
                if source.role == "teacher":
                    check_source(self.store, source, name, term)

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.about['class']}, {len(self.store):,} rows in {self.store.folder}"


def row_numbers(batch: Any) -> Tensor | None:
    """The numbers of a batch's rows, if it has any."""
    rows = batch.get("row") if isinstance(batch, Mapping) else None
    return rows if isinstance(rows, Tensor) else None


def recall(
    store: AnswerStore, inputs: Any, names: Sequence[str], numbers: Tensor | None = None
) -> dict[str, Tensor]:
    """Answers to a model's inputs by name, on the inputs' device, padded as they are.

    Raises:
        ValueError: if a row is not there.
    """
    ids = row_ids(inputs)
    places = store.find(ids)
    missing = np.flatnonzero(places < 0)
    if len(missing):
        which = "" if numbers is None else f" (the first is row {int(numbers[int(missing[0])])})"
        raise ValueError(
            f"{len(missing)} of the {len(ids)} rows of this batch are not in the cache "
            f"{store.folder}{which}. {WHY}"
        )
    values, lengths = store.read(ids, places, names)
    device = _device(inputs)
    found = {}
    for name, value in values.items():
        if store.answers[name].per_token:
            value = padded(value, lengths, inputs["attention_mask"].shape[1])
        found[name] = value.to(device, non_blocking=True)
    return found


def recall_sources(
    store: AnswerStore, inputs: Any, sources: Sequence[Source], numbers: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[Source, Any]]:
    """Outputs and the tensor of each source, as a live teacher gives them."""
    of_teacher = store.about["teacher"]
    wanted = {source: names_of(source, of_teacher) for source in sources}
    for source, names in wanted.items():
        if not source.is_many and names[0] not in store.answers:
            raise ValueError(_not_kept(store, source))
    asked = {"logits", *(n for names in wanted.values() for n in names)}
    found = recall(store, inputs, sorted(asked & store.answers.keys()), numbers)
    values: dict[Source, Any] = {}
    for source, own in wanted.items():
        if source.is_many:
            values[source] = _with_stand_ins(store, source, own, found)
        else:
            value = found[own[0]]
            values[source] = value if source.process is None else source.process(value)
    return {n: v for n, v in found.items() if n == "logits"}, values


def _with_stand_ins(
    store: AnswerStore, source: Source, names: Sequence[str], found: Mapping[str, Tensor]
) -> list[Tensor]:
    """A tensor for each name: zeros where it was not kept, since no pair of layers reads it."""
    kept = [found[n] for n in names if n in found]
    if not kept:
        raise ValueError(_not_kept(store, source))
    return [found[n] if n in found else torch.zeros_like(kept[0]) for n in names]


def check_source(store: AnswerStore, source: Source, name: str, term: Any) -> None:
    """Refuse a source that is not in the cache, or that needs a mask and has none."""
    of_teacher = store.about["teacher"]
    names = names_of(source, of_teacher)
    kept = [store.answers[n] for n in names if n in store.answers]
    if not kept or (len(kept) < len(names) and not source.is_many):
        raise ValueError(f"Term {name!r}: {_not_kept(store, source)}")
    if any(answer.per_token for answer in kept) and not store.about.get("one_length"):
        check_mask(source, name, term)


def names_of(source: Source, of_teacher: Mapping[str, Any]) -> list[str]:
    """The names in a cache of all tensors that a source stands for."""
    outputs, modules = of_teacher["outputs"], of_teacher["modules"]
    return [answer_name(single, outputs) for single in singles(source, outputs, modules)]


def check_mask(source: Source, name: str, term: Any) -> None:
    """Refuse a term that reads answers per token and is not told which are padding."""
    if not any("mask" in s.name for s in term.sources() if s.role == "batch"):
        raise ValueError(
            f"Term {name!r} reads {source}, which a cache keeps without padding, and has no mask: "
            "padding would be compared with zeros. Give the term a mask, as in "
            f"criteria.{name}.inputs.mask=batch.attention_mask."
        )


def _not_kept(store: AnswerStore, source: Source) -> str:
    near = get_close_matches(str(source).partition(".")[2], store.answers, n=1)
    hint = f" Nearest: {near[0]}." if near else ""
    return (
        f"{source} is not in the cache {store.folder}, which has {', '.join(store.answers)}.{hint} "
        "Make one with the same criteria: lightning-distill job=cache criteria=[...]."
    )


def _device(inputs: Any) -> torch.device:
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    values = (inputs,) if isinstance(inputs, Tensor) else values
    return next(v.device for v in values if isinstance(v, Tensor))
