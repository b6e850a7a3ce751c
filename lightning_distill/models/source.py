"""Named tensors of a model: its outputs, hidden states, attentions and any submodule.

A [`Source`][] says where a tensor comes from; [`capture`][] and [`read`][] in
`lightning_distill.models.capture` find it.

    student.logits                          an output, by key
    student.hidden_states[2]                one of several, by index; also [-1]
    student.cross_attentions[-1]            of an encoder-decoder, as encoder_hidden_states[0] and
                                            decoder_hidden_states[0]
    student.hidden_states[*]  or  [1:]      several at once, in order
    student.decoder_hidden_states[*]        of one stack of several; also encoder_hidden_states
    student.layer:bert.encoder.layer.0      what a submodule returns, whatever is done to it then
    student.layer:bert.encoder.layer.*      what every submodule of that pattern returns
    student.layer:stem,stage1.2,stage2.*    those of several, in this order
    student.layer:bert.pooler[0]            an item of a tuple or dict that it returns
    student.layer_input:classifier          what a submodule is given
    student.head:lm_head                    weight and bias of a linear head, with what follows it
    student.pooled:mean                     one vector for each row: its tokens pooled, padding
                                            left out by the model's own attention mask; also cls,
                                            max and last
    student.pooled:mean,normalised          the same, of length 1
    student.pooled:cls,row_head             what a head for labels of whole rows makes of them
    teacher.sparse:logits                   the largest or the drawn ones, as a cache keeps them
    batch.attention_mask                    from the batch; None where rows are packed

Paths are those of the model without adapters: `lm_head`, and not `base_model.model.lm_head`, where
peft has wrapped it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from .pooling import check_pooling
from .row_head import ROW_HEAD

ROLES = ("student", "teacher", "batch")


# Kinds that are read from what the model returns.
OUTPUTS = ("output", "sparse")

# How the names of outputs end that models of transformers return when they are asked: those of an
# encoder, a decoder or a tower have its name before.
OF_LAYERS = ("hidden_states", "attentions")


Item = int | str | tuple[int | None, int | None]  # a tuple is a slice


@dataclass(frozen=True)
class Source:
    """Where a tensor comes from.

    Attributes:
        role: `student`, `teacher` or `batch`.
        kind: `output` (what the model returns, or an entry of the batch), `layer` (what a
            submodule returns), `layer_input` (what it is given), `head` (a
            [`Head`][lightning_distill.models.head.Head], and no tensor), `pooled` (a vector for
            each row, see `pooled`) or `sparse` (an
            output of the teacher; from a cache a dict of the fields that it keeps, with the
            settings of their encoding, and from a live teacher the whole tensor, for the criterion
            to choose from).
        name: key of the output, or dotted path of the submodule, or several paths with commas
            between them; `""` is the whole model, or the whole batch. Of `pooled` how, as
            `mean,normalised` or `cls,row_head`.
        item: which part of a tuple, list or dict; a slice as `(start, stop)`; `None` for all.
        process: applied last to the tensor found.
        optional: an entry of the batch that may be absent, which then reads as `None`.
    """

    role: str
    kind: str
    name: str
    item: Item | None = None
    process: Callable[[Any], Tensor] | None = None
    optional: bool = False

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Read a source as it is written in a config."""
        role, dot, rest = text.partition(".")
        if not dot or role not in ROLES:
            near = get_close_matches(role, ROLES, n=1)
            hint = f" Did you mean {near[0]!r}?" if near and near[0] != role else ""
            raise ValueError(
                f"A source starts with 'student.', 'teacher.' or 'batch.', got {text!r}.{hint} "
                "Examples: student.logits, teacher.hidden_states[-1], "
                "student.layer:encoder.layer.0, batch.labels."
            )
        kind = "output"
        for prefix in ("layer", "layer_input", "head", "pooled", "sparse"):
            if rest.startswith(f"{prefix}:"):
                kind, rest = prefix, rest[len(prefix) + 1 :]
        if kind != "output" and role == "batch":
            raise ValueError(f"The batch has no layers, got {text!r}; name one of its keys.")
        match = re.fullmatch(r"(.*?)(?:\[([^\[\]]*)\])?", rest)
        name, item = match.groups() if match else (rest, None)
        if match is None or "[" in name or "]" in name:
            raise ValueError(f"The brackets of source {text!r} must be one pair, at its end.")
        if kind == "pooled":
            if item is not None:
                raise ValueError(f"Source {text!r} is one tensor; leave the brackets out.")
            check_pooling(name, text)
            return cls(role, kind, name)
        several = "*" in name or "," in name
        if kind == "head" and (not name or several or item is not None):
            raise ValueError(f"Source {text!r} must name one head, as in {role}.head:lm_head.")
        if kind == "sparse" and (role != "teacher" or not name or several or item is not None):
            raise ValueError(
                f"Source {text!r} must name one output of the teacher, as in teacher.sparse:logits."
            )
        if kind == "output" and (not name or several):
            raise ValueError(
                f"Source {text!r} names no tensor; patterns are for layers, "
                f"as in {role}.layer:encoder.layer.*."
            )
        if several and item is not None and not re.fullmatch(r"-?\d+|\w+", item):
            raise ValueError(f"Source {text!r} has a pattern and a range; use one of them.")
        return cls(role, kind, name, None if item is None else _parse_item(item, text))

    @property
    def is_many(self) -> bool:
        """Whether this names several tensors at once."""
        return isinstance(self.item, tuple) or self.names_many

    @property
    def names_many(self) -> bool:
        """Whether its name stands for several submodules."""
        return self.kind != "pooled" and ("*" in self.name or "," in self.name)

    @property
    def is_inner(self) -> bool:
        """Whether it is of a model's layers, and not of what the model predicts."""
        of_layers = self.kind == "output" and self.name.endswith(OF_LAYERS)
        return of_layers or self.kind in ("layer", "layer_input")

    @property
    def of_row_head(self) -> bool:
        """Whether it is what a head for labels of whole rows says."""
        return self.kind == "pooled" and self.name.endswith(f",{ROW_HEAD}")

    def __str__(self) -> str:
        prefix = "" if self.kind == "output" else f"{self.kind}:"
        item = self.item
        if isinstance(item, tuple):
            item = ":".join("" if i is None else str(i) for i in item)
        return f"{self.role}.{prefix}{self.name}" + ("" if item is None else f"[{item}]")

    def singles(self, count: int, names: Sequence[str]) -> "list[Source]":
        """The sources that a source of many stands for, in order.

        Args:
            count: how many tensors were found for it.
            names: paths of all submodules, for a pattern.
        """
        if not self.is_many:
            return [self]
        if isinstance(self.item, tuple):
            first = self.item[0] or 0
            return [replace(self, item=first + i) for i in range(count)]
        return [replace(self, name=name) for name in matching(self.name, names)]


def _parse_item(item: str, text: str) -> Item:
    if item == "*":
        return (None, None)
    if re.fullmatch(r"-?\d+", item):
        return int(item)
    bounds = re.fullmatch(r"(-?\d*):(-?\d*)", item)
    if bounds:
        start, stop = (int(b) if b else None for b in bounds.groups())
        return (start, stop)
    if not item:
        raise ValueError(
            f"Source {text!r} has empty brackets; write an index, a key, * or a range such as 1:."
        )
    return item


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Paths that match a pattern, in their order; each pattern between commas in turn.

    `*` stands for one part of a dotted path, or for some of its letters.
    """
    names = list(names)

    def matches(name: str, parts: list[str]) -> bool:
        own = name.split(".")
        return len(own) == len(parts) and all(map(fnmatchcase, own, parts))

    each = [p.strip().split(".") for p in pattern.split(",")]
    return list(dict.fromkeys(name for parts in each for name in names if matches(name, parts)))


def nearest(name: str, names: Iterable[str], count: int = 5) -> str:
    """A phrase that lists the names most like `name`, for an error message."""
    names = [n for n in names if n]
    near = get_close_matches(name, names, n=count, cutoff=0.4)
    if not near:
        near = names[:count]
        return f"It has: {', '.join(near)}{', ...' if len(names) > count else ''}."
    return f"Nearest: {', '.join(near)}."
