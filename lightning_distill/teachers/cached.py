"""A teacher that is not there: its answers are read from disk."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn, Tensor

from ..cache import AnswerStore, row_ids, Sampled, token_count, TopK
from ..cache.answer import Encoding
from ..models.batch import row_numbers
from ..models.head import Head
from ..models.source import Source
from .answers import answer_name, LOGITS, padded, singles

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
        self._heads: dict[str, Head] = {}

    def forward(self, *args: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """The logits of these rows, (rows, classes) or (rows, tokens, classes), in float32."""
        given: Any = args or inputs
        outputs = _outputs(Rows(self.store, given), self.head)
        if "logits" not in outputs:
            raise ValueError(_not_kept(self.store, LOGITS))
        return {"logits": outputs["logits"]}

    def head(self, path: str, device: torch.device) -> Head:
        """A head of the teacher, on a device; read from disk once."""
        head = self._heads.get(path) or self.store.heads()[path]
        if head.weight.device != device:
            bias = None if head.bias is None else head.bias.to(device)
            head = Head(head.weight.to(device), bias, head.scale, head.softcap)
        self._heads[path] = head
        return head

    def recall(
        self, module: Any, batch: Any, sources: Sequence[Source], keep: bool = False
    ) -> tuple[Any, dict[Source, Any]]:
        """What `module` would get if it ran the teacher on `batch`: outputs, and each source.

        Logits among the outputs are read, or made of hidden states, where they are asked for.

        Raises:
            ValueError: if a row or a source is not in the cache, and why that may be.
        """
        inputs = module.teacher_inputs(batch)
        return recall_sources(self.store, inputs, sources, self.head, row_numbers(batch))

    def check(self, terms: Mapping[str, Any]) -> None:
        """Refuse terms that ask for what is not in the cache, or would compare its padding.

        Args:
            terms: those of an objective.
        """
        for name, term in terms.items():
            for source in term.sources():
                if source.role == "teacher":
                    check_source(self.store, source, name, term)
        answers, where = self.store.answers, f"the cache {self.store.folder}"
        check_encodings(terms, lambda name: answers[name].encoding, where, "job.")

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.about['class']}, {len(self.store):,} rows in {self.store.folder}"


def recall(
    store: AnswerStore, inputs: Any, names: Sequence[str], numbers: Tensor | None = None
) -> dict[str, Tensor]:
    """Answers to a model's inputs by name, on the inputs' device, padded as they are.

    Raises:
        ValueError: if a row is not there.
    """
    return Rows(store, inputs, numbers).values(names)


class Rows:
    """The rows of a batch in a cache.

    Args:
        store: that holds them.
        inputs: the teacher's.
        numbers: of the rows in the data, for an error.

    Raises:
        ValueError: if a row is not there.
    """

    def __init__(self, store: AnswerStore, inputs: Any, numbers: Tensor | None = None):
        self.store, self.ids = store, row_ids(inputs)
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
    store: AnswerStore,
    inputs: Any,
    sources: Sequence[Source],
    head: Callable[[str, torch.device], Head],
    numbers: Tensor | None = None,
) -> tuple[Outputs, dict[Source, Any]]:
    """Outputs and the tensor of each source, as a live teacher gives them.

    Args:
        store: that holds the rows.
        inputs: the teacher's.
        sources: of the teacher.
        head: from a path and a device to the teacher's head.
        numbers: of the rows in the data, for an error.
    """
    rows = Rows(store, inputs, numbers)
    of_teacher = store.about["teacher"]
    heads = {source: head(source.name, rows.device) for source in sources if source.kind == "head"}
    wanted = {source: names_of(source, of_teacher) for source in sources if source not in heads}
    for source, names in wanted.items():
        if not source.is_many and names[0] not in store.answers:
            raise ValueError(_not_kept(store, source))
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
    return _outputs(rows, head), values


def _outputs(rows: Rows, head: Callable[[str, torch.device], Head]) -> Outputs:
    """The logits, as they were kept or as they follow from a head."""
    store = rows.store
    if "logits" in store.answers:
        return Outputs({"logits": lambda: rows.values(["logits"])["logits"]})
    paths = [path for path in store.head_names if f"layer_input:{path}" in store.answers]
    if not paths:
        return Outputs({})
    return Outputs({"logits": lambda: _logits(rows, paths[0], head(paths[0], rows.device))})


def _logits(rows: Rows, path: str, head: Head) -> Tensor:
    (hidden,) = rows.values([f"layer_input:{path}"]).values()
    return head(hidden.to(head.weight.dtype)).float()


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
    if source.kind == "head":
        if source.name not in store.head_names:
            raise ValueError(f"Term {name!r}: {_not_kept(store, source)}")
        return
    of_teacher = store.about["teacher"]
    names = names_of(source, of_teacher)
    kept = [store.answers[n] for n in names if n in store.answers]
    if not kept or (len(kept) < len(names) and not source.is_many):
        raise ValueError(f"Term {name!r}: {_not_kept(store, source)}")
    if any(answer.per_token for answer in kept) and not store.about.get("one_length"):
        check_mask(source, name, term)


def check_encodings(
    terms: Mapping[str, Any], encoding: Callable[[str], Encoding], where: str, advice: str
) -> None:
    """Refuse terms that read the largest logits or drawn classes where others are kept.

    Args:
        terms: those of an objective.
        encoding: from the name of an answer to how it is written.
        where: what keeps them, for an error.
        advice: what stands before the name of a setting.
    """
    kinds = {TopK: "top_k", Sampled: "sampled"}
    for name, term in terms.items():
        for source in (s for s in term.sources() if s.kind == "sparse"):
            kept = encoding(source.name)
            found, criterion = kinds.get(type(kept), "full"), getattr(term, "criterion", None)
            wanted = getattr(criterion, "encoding", found if found != "full" else "top_k")
            # A criterion with a temperature reads what was kept at that.
            own = getattr(kept, "temperature", 1.0)
            at = getattr(criterion, "temperature", own)
            if found != wanted or own != at:
                raise ValueError(
                    f"Term {name!r} reads teacher.{source.name} as {wanted} at temperature "
                    f"{at:.4g}, and {where} keeps {found}"
                    + (f" at {own:.4g}" if found != "full" else "")
                    + f". Keep what it reads, with {advice}logits={wanted} "
                    f"{advice}temperature={at:.4g}, or choose a criterion for what is there."
                )


def names_of(source: Source, of_teacher: Mapping[str, Any]) -> list[str]:
    """The names in a cache of all tensors that a source stands for."""
    outputs, modules = of_teacher["outputs"], of_teacher["modules"]
    return [answer_name(single, outputs) for single in singles(source, outputs, modules)]


def check_mask(source: Source, name: str, term: Any) -> None:
    """Refuse a term that reads answers per token and is not told which are padding."""
    by_labels = getattr(getattr(term, "criterion", None), "masked_by_labels", False)
    if by_labels and "labels" in term.inputs:
        return
    if not any("mask" in s.name for s in term.sources() if s.role == "batch"):
        raise ValueError(
            f"Term {name!r} reads {source}, which a cache keeps without padding, and has no mask: "
            "padding would be compared with zeros. Give the term a mask, as in "
            f"criteria.{name}.inputs.mask=batch.attention_mask."
        )


def _not_kept(store: AnswerStore, source: Source) -> str:
    near = get_close_matches(str(source).partition(".")[2], store.answers, n=1)
    hint = f" Nearest: {near[0]}." if near else ""
    kept = [*store.answers, *(f"head:{path}" for path in store.head_names)]
    return (
        f"{source} is not in the cache {store.folder}, which has {', '.join(kept)}.{hint} "
        "Make one with the same criteria: lightning-distill job=cache criteria=[...]."
    )


def _device(inputs: Any) -> torch.device:
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    values = (inputs,) if isinstance(inputs, Tensor) else values
    return next(v.device for v in values if isinstance(v, Tensor))
