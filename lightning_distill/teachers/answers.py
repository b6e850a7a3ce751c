"""What a teacher is asked for, and its answers by the names that a cache keeps them under."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..cache import Answer, token_count
from ..cache.answer import Encoding
from ..models.batch import entries, teacher_entries, with_entries
from ..models.capture import read
from ..models.forward import kept_heads, LOGITS, PREDICTED
from ..models.source import Source


def answer_name(source: Source, outputs: Mapping[str, int]) -> str:
    """The name of a source of one tensor in a cache: `logits`, `hidden_states[2]`, `layer:PATH`.

    Args:
        source: of the teacher.
        outputs: how many tensors each output of the teacher has that has several; an index from
            the end is counted from the start.

    Raises:
        ValueError: for an index that the output does not have.
    """
    count = outputs.get(source.name)
    if source.kind == "output" and count is not None and isinstance(source.item, int):
        if not -count <= source.item < count:
            raise ValueError(
                f"{source} is out of range: there are {count}, numbered 0 to {count - 1}."
            )
        source = replace(source, item=source.item % count)
    if source.kind == "sparse":
        source = replace(source, kind="output")
    return str(replace(source, process=None)).partition(".")[2]


def singles(source: Source, outputs: Mapping[str, int], modules: Sequence[str]) -> list[Source]:
    """The sources of one tensor that a source of many stands for.

    Raises:
        ValueError: for a range of an output of which it is not known how many tensors it has.
    """
    if not source.is_many:
        return [source]
    if source.names_many:
        return source.singles(0, modules)
    count = outputs.get(source.name)
    if count is None:
        raise ValueError(f"It is not known how many tensors {source} has.")
    return [replace(source, item=i) for i in range(count)[slice(*source.item)]]  # type: ignore[misc]


def names_of(source: Source, of_teacher: Mapping[str, Any]) -> list[str]:
    """The names in a cache of all tensors that a source stands for.

    Args:
        source: of the teacher.
        of_teacher: what a cache knows of it, see [`Teacher.about`][].
    """
    outputs, modules = of_teacher["outputs"], of_teacher["modules"]
    return [answer_name(single, outputs) for single in singles(source, outputs, modules)]


def counts_of(outputs: Any) -> dict[str, int]:
    """How many tensors each output has that has several."""
    named = outputs.items() if isinstance(outputs, Mapping) else ()
    return {str(k): len(v) for k, v in named if isinstance(v, tuple | list)}


def raw_values(
    sources: Iterable[Source], outputs: Any, values: Mapping[Source, Any]
) -> dict[str, Tensor]:
    """The tensors of sources of one tensor each, and the logits, by the names in a cache.

    Heads are no tensors, and kept elsewhere; logits that follow from one are not needed.

    Raises:
        ValueError: for a source whose tensor is made of something that is none.
    """
    sources, counts = list(sources), counts_of(outputs)
    found: dict[str, Tensor] = {}
    for source in sources:
        if source.kind == "head":
            continue
        if source.is_many:
            raise ValueError(f"{source} stands for several tensors; name each.")
        value = values[source]
        if source.process is not None or not isinstance(value, Tensor):
            raise ValueError(
                f"{source} is made by a function of one's own, or is no tensor; a cache keeps "
                "tensors that the teacher returns. Use a live teacher."
            )
        found[answer_name(source, counts)] = value
    for name in () if kept_heads(sources) else PREDICTED:
        # A model without a head has none; metrics on the teacher are not asked for then.
        if name not in found:
            with suppress(ValueError):
                found[name] = read(replace(LOGITS, name=name), outputs, {})
    return found


def describe(
    values: Mapping[str, Tensor],
    shorter: Mapping[str, Tensor] | None,
    tokens: int | None,
    encodings: Callable[[str], Encoding],
) -> list[Answer]:
    """Which tensors have a vector per token, and of which shape they are.

    Args:
        values: the teacher's tensors for a batch.
        shorter: those for the same batch without its last token; `None` if it has one or none.
        tokens: of a row of the batch; `None` if that is not known.
        encodings: from a name to how it is written.

    Raises:
        ValueError: for a tensor of which more than one dimension counts tokens, as attention maps.
    """
    answers = []
    if tokens is None:
        # The teacher is not told which tokens count, so that all of them are kept.
        shorter = None
    for name, tensor in values.items():
        per_token = tokens is not None and tensor.dim() > 2 and tensor.shape[1] == tokens
        if shorter is not None:
            before, after = tuple(tensor.shape[1:]), tuple(shorter[name].shape[1:])
            per_token = before != after
            moved = before[1:] != after[1:] or not before or before[0] != tokens
            if per_token and moved:
                raise ValueError(
                    f"teacher.{name} has shape {tuple(tensor.shape)}, which depends on the number "
                    "of tokens in other ways than (rows, tokens, ...), as attention maps do. "
                    "Leave its term out, or use a live teacher."
                )
        shape = tuple(tensor.shape[2:] if per_token else tensor.shape[1:])
        answers.append(Answer(name, per_token, shape, encodings(name)))
    return answers


def without_last_target(batch: Any) -> Any:
    """The batch with one token less of what a decoder reads beside an encoder, and of its labels.

    `None` if nothing would be left.
    """
    names = ("labels", "label", "decoder_input_ids", "decoder_attention_mask")
    found = {n: v for n, v in entries(batch).items() if n in names and isinstance(v, Tensor)}
    if not found or min(value.shape[1] for value in found.values()) < 2:
        return None
    return with_entries(batch, {name: value[:, :-1] for name, value in found.items()})


def without_last_token(batch: Any) -> Any:
    """The batch with one token less in each tensor that has as many as a row has.

    `None` if that is not known, or nothing would be left.
    """
    own = teacher_entries(batch)
    if own is not None:
        cut = without_last_token(own)
        return None if cut is None else with_entries(batch, {"teacher": cut})
    tokens = token_count(batch)
    if tokens is None or tokens < 2:
        return None

    def cut_one(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() > 1 and value.shape[1] == tokens:
            return value[:, :-1]
        return value

    return with_entries(batch, {n: cut_one(v) for n, v in entries(batch).items()})
