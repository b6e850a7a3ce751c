"""What each dimension of a weight counts: channels, heads or neurons. The size follows from it."""

import copy
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from ..models.plain_tensors import is_quantized
from ..models.row_head import ROW_HEAD
from .layer_stacks import built_on_paper, layer_stacks
from .plain_families import Attention, Family, family_of, FeedForward
from .shape import Shape, shape_of

CHANNELS, HEADS, GROUPS, NEURONS = "channels", "heads", "groups", "neurons"


@dataclass(frozen=True)
class Units:
    """What one dimension of a weight counts.

    Attributes:
        kind: channels of the hidden states, heads of the queries, groups (heads of keys and
            values), or neurons.
        of: the path of the linear layer that reads them; empty for channels, which are the same in
            the whole model.
        size: how many numbers one of them has.
        parts: how often all of them follow one another, as in a linear layer that gives queries,
            keys and values.
    """

    kind: str
    of: str = ""
    size: int = 1
    parts: int = 1

    def places(self, kept: torch.Tensor, count: int) -> torch.Tensor:
        """Where the numbers of these units lie in a dimension that counts `count` of them."""
        part = torch.arange(self.parts)[:, None, None] * count * self.size
        return (part + kept[None, :, None] * self.size + torch.arange(self.size)).flatten()

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """A number for each unit, of one for each place of the dimension."""
        return values.unflatten(0, (self.parts, -1, self.size)).sum((0, 2))


@dataclass(frozen=True)
class Place:
    """Where a layer is: the number of its stack, the path of its list, and its own number."""

    stack: int
    path: str
    number: int


class Anatomy:
    """The units of a model.

    Args:
        model: of transformers, of one of the families that are known.

    Raises:
        ValueError: for other models, and for quantised ones.
    """

    def __init__(self, model: nn.Module):
        self.model, self.family = model, family_of(model)
        if any(map(is_quantized, model.parameters())):
            raise ValueError(
                "student=pruned copies the teacher's weights, and these are quantised: leave "
                "teacher.quantization=null, or take another student."
            )
        self.stacks = layer_stacks(model)
        config: Any = model.config
        self.shape = shape_of(config, self.family, self.stacks)
        self.paths = [path for stack in self.stacks for path in stack.paths[0]]
        # By the path of the linear layer that reads the heads, or the neurons.
        self.attentions: dict[str, Attention] = {}
        self.feed_forwards: dict[str, FeedForward] = {}
        self.dims = self._dims()

    def place(self, name: str) -> Place | None:
        """The layer that a weight or module is in; `None` outside of all."""
        for number, stack in enumerate(self.stacks):
            for path in stack.paths[0]:
                found = re.match(rf"{re.escape(path)}\.(\d+)(\.|$)", name)
                if found:
                    return Place(number, path, int(found[1]))
        return None

    def layers(self) -> Iterator[tuple[Place, nn.Module]]:
        """All layers, with where they are."""
        for number, stack in enumerate(self.stacks):
            for path in stack.paths[0]:
                for i in range(stack.counts[0]):
                    yield Place(number, path, i), self.model.get_submodule(f"{path}.{i}")

    def config(self, shape: Shape) -> Any:
        """The model's configuration with another shape, and all layers."""
        config: Any = copy.deepcopy(self.model.config)
        shape.write(config, self.family)
        return config

    def refusal(self, shape: Shape) -> str | None:
        """Why transformers takes no configuration of this shape; `None` if it does.

        Of Llama, say, the number of heads must divide the width, whatever the size of a head.
        """
        try:
            self.config(shape).validate()
        except StrictDataclassError as error:
            return str(error).strip().splitlines()[-1].strip().removeprefix("ValueError: ")
        return None

    def _known(self) -> dict[str, tuple[Units | None, ...]]:
        """What the table says of the weights of all layers; `None` for a dimension of channels."""
        size, family = self.shape.head_size, self.family
        found: dict[str, tuple[Units | None, ...]] = {}
        first, last = (1, 0) if family.transposed else (0, 1)

        def linear(path: str, out: Units | None, into: Units | None) -> None:
            dims = {first: out, last: into}
            found[f"{path}.weight"] = (dims[0], dims[1])
            found[f"{path}.bias"] = (out,)

        for place, layer in self.layers():
            there = {name for name, _ in layer.named_modules()}
            base = f"{place.path}.{place.number}."
            for attention in family.attentions:
                if attention.out not in there:
                    continue
                of = base + attention.out
                self.attentions[of] = attention
                heads = Units(HEADS, of, size)
                queries = replace(heads, parts=3 if attention.fused else 1)
                linear(base + attention.queries, queries, None)
                for other in attention.others:
                    linear(base + other, Units(GROUPS, of, size), None)
                linear(of, None, heads)
                if attention.table in there:
                    found[f"{base}{attention.table}.weight"] = (None, Units(HEADS, of))
            for part in family.feed_forwards:
                if part.out not in there:
                    continue
                of = base + part.out
                self.feed_forwards[of] = part
                for into in part.into:
                    linear(base + into, Units(NEURONS, of, parts=2 if part.halves else 1), None)
                linear(of, None, Units(NEURONS, of))
        return found

    def _dims(self) -> dict[str, tuple[Units | None, ...]]:
        """What each dimension of each weight counts; `None` where it is never cut."""
        known, shape = self._known(), self.shape
        wider = replace(shape, width=shape.width + shape.head_size)
        if self.family.tied:
            wider = replace(wider, heads=shape.heads + 1, key_values=shape.heads + 1)
        after = built_on_paper(type(self.model), self.config(wider)).state_dict()
        found = {}
        for name, weight in self.model.state_dict().items():
            if name.startswith(f"{ROW_HEAD}."):
                # It is given to a model, which knows nothing of it, and reads the hidden states.
                found[name] = (None, Units(CHANNELS))[: weight.dim()]
                continue
            tags = known.get(name, (None,) * weight.dim())
            grown = [a != b for a, b in zip(weight.shape, after[name].shape, strict=True)]
            if name not in known and sum(grown) > 1 and self.place(name) is not None:
                raise ValueError(
                    f"student=pruned does not know what {name} of {type(self.model).__name__} "
                    "does. Take student=from_teacher, which leaves whole layers out."
                )
            found[name] = tuple(
                tag or (Units(CHANNELS) if g else None) for tag, g in zip(tags, grown, strict=True)
            )
        return found

    # Sizes.

    def count(self, shape: Shape) -> int:
        """How many parameters a model of this shape has, each shared one counted once."""
        with_one, more = self.counts(shape)
        return with_one + sum((n - 1) * each for n, each in zip(shape.layers, more, strict=True))

    def counts(self, shape: Shape) -> tuple[int, list[int]]:
        """How many there are with one layer in each stack, and in each further layer of a stack."""
        outside, firsts, others = self._terms
        with_one = sum(_evaluated(terms, shape) for terms in (outside, *firsts))
        return with_one, [_evaluated(other, shape) for other in others]

    @cached_property
    def _terms(self) -> tuple[Any, list[Any], list[Any]]:
        """Products of sizes with how often they occur: outside, in first layers, in others."""
        outside: Counter[Any] = Counter()
        firsts: list[Counter[Any]] = [Counter() for _ in self.stacks]
        others: list[Counter[Any]] = [Counter() for _ in self.stacks]
        for name, weight in self.model.named_parameters():
            place, times = self.place(name), 1
            for size, units in zip(weight.shape, self.dims[name], strict=True):
                times *= size if units is None else units.size * units.parts
            kinds = tuple(sorted(u.kind for u in self.dims[name] if u is not None))
            if place is None:
                outside[kinds] += times
            elif place.number < 2:
                (others if place.number else firsts)[place.stack][kinds] += times
        return outside, firsts, others


def _evaluated(terms: Mapping[tuple[str, ...], int], shape: Shape) -> int:
    sizes = {CHANNELS: shape.width, HEADS: shape.heads, GROUPS: shape.key_values}
    sizes[NEURONS] = shape.intermediate
    total = 0
    for kinds, times in terms.items():
        for kind in kinds:
            times *= sizes[kind]
        total += times
    return total


__all__ = ["CHANNELS", "GROUPS", "HEADS", "NEURONS", "Anatomy", "Family", "Place", "Units"]
