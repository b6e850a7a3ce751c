"""A model with fewer heads, neurons and channels, its weights cut out of another one."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn, Tensor

from ..models.generation import copy_generation_config
from ..models.pooling import Dense, dense_of, give_dense
from ..models.row_head import give_row_head, row_head_of, RowHead
from .importance import Scores
from .shape import Shape
from .units import Anatomy, CHANNELS, GROUPS, HEADS, Units


@dataclass(frozen=True)
class Kept:
    """The numbers of the units that are kept, in order.

    Attributes:
        channels: of the hidden states.
        heads: of each attention, by the path of the linear layer that reads them.
        groups: its heads of keys and values.
        neurons: of each feed-forward part, by the path of the linear layer that reads them.
    """

    channels: Tensor
    heads: Mapping[str, Tensor]
    groups: Mapping[str, Tensor]
    neurons: Mapping[str, Tensor]

    def of(self, units: Units) -> Tensor:
        """Those that one dimension of a weight counts."""
        if units.kind == CHANNELS:
            return self.channels
        return {HEADS: self.heads, GROUPS: self.groups}.get(units.kind, self.neurons)[units.of]


def most_important(anatomy: Anatomy, shape: Shape, scores: Scores) -> Kept:
    """The units with the largest scores, as many as a shape has.

    Heads go in whole groups where several read the same keys and values, and have the same number
    in all layers where the first one holds a table for them.
    """
    heads, groups = {}, {}
    for of, attention in anatomy.attentions.items():
        own, more = scores.heads[of], scores.groups[of]
        if attention.table is not None:
            place = anatomy.place(of)
            stack = None if place is None else place.stack
            same = [
                o
                for o, a in anatomy.attentions.items()
                if a == attention and (p := anatomy.place(o)) is not None and p.stack == stack
            ]
            own = torch.stack([scores.heads[o] for o in same]).sum(0)
            more = torch.stack([scores.groups[o] for o in same]).sum(0)
        heads[of], groups[of] = _heads(anatomy.shape, shape, own, more)
    return Kept(
        _largest(scores.channels, shape.width),
        heads,
        groups,
        {of: _largest(own, shape.intermediate) for of, own in scores.neurons.items()},
    )


def _heads(before: Shape, after: Shape, own: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    """The heads of the queries that are kept, and those of keys and values."""
    grouped = own.unflatten(0, (before.key_values, before.group))
    kept = _largest(grouped.sum(1) + more, after.key_values)
    within = torch.stack([_largest(grouped[g], after.group) for g in kept.tolist()])
    return (kept[:, None] * before.group + within).flatten(), kept


def _largest(scores: Tensor, count: int) -> Tensor:
    """The places of the largest numbers, in order; of equal ones the first."""
    return scores.sort(descending=True, stable=True).indices[:count].sort().values


def narrow(anatomy: Anatomy, shape: Shape, kept: Kept) -> nn.Module:
    """The model with the units that are kept, and with all its layers; in float32, on the CPU.

    Args:
        anatomy: of the model, which stays as it is.
        shape: with as many units as are kept.
        kept: which they are.
    """
    model: Any = anatomy.model
    config = anatomy.config(shape)
    config.dtype = torch.float32
    state = {
        name: _cut(weight, anatomy, anatomy.dims[name], kept)
        for name, weight in model.state_dict().items()
        if name in anatomy.dims
    }
    with torch.random.fork_rng(devices=[]):
        made = type(model)(config)
    head = row_head_of(model)
    if head is not None:
        give_row_head(made, RowHead(shape.width, head.names, head.pooling, head.dropout.p))
    made.load_state_dict(state)
    copy_generation_config(model, made)
    dense = dense_of(model)
    if dense is not None:
        give_dense(made, _of_channels(dense, kept.channels))
    return made


def _cut(weight: Tensor, anatomy: Anatomy, dims: tuple[Units | None, ...], kept: Kept) -> Tensor:
    weight = weight.detach().cpu()
    for dim, units in enumerate(dims):
        if units is not None:
            count = weight.shape[dim] // (units.size * units.parts)
            weight = weight.index_select(dim, units.places(kept.of(units), count))
    return weight


def _of_channels(dense: Dense, channels: Tensor) -> Dense:
    """What maps pooled vectors, reading fewer channels of them."""
    smaller = copy.deepcopy(dense).cpu()
    weight = smaller.linear.weight.detach().index_select(1, channels)
    linear = nn.Linear(len(channels), len(weight), smaller.linear.bias is not None)
    linear.load_state_dict({**smaller.linear.state_dict(), "weight": weight})
    smaller.linear = linear
    return smaller
