"""The shape of a homogeneous model: how many layers, heads, neurons and channels it has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .layer_stacks import Stack
from .plain_families import Family


@dataclass(frozen=True)
class Shape:
    """How large each part of a model is; the same in every layer.

    Attributes:
        layers: of each stack.
        heads: of the queries of an attention.
        key_values: heads of its keys and values.
        intermediate: neurons of a feed-forward part.
        width: channels of the hidden states.
        head_size: of one head; never cut.
    """

    layers: tuple[int, ...]
    heads: int
    key_values: int
    intermediate: int
    width: int
    head_size: int

    @property
    def group(self) -> int:
        """How many heads of the queries read the same keys and values."""
        return self.heads // self.key_values

    def with_heads(self, heads: int) -> "Shape":
        """With fewer heads, and with them whole groups of keys and values.

        Raises:
            ValueError: if so many heads are no whole groups.
        """
        if heads % self.group == 0:
            return replace(self, heads=heads, key_values=heads // self.group)
        if self.key_values == 1:
            return replace(self, heads=heads)
        raise ValueError(
            f"`heads` must be a multiple of {self.group}, for so many of the teacher's heads read "
            f"the same keys and values, got {heads}."
        )

    def write(self, config: Any, family: Family) -> None:
        """Write all but the layers into a configuration."""
        setattr(config, family.width, self.width)
        setattr(config, family.heads, self.heads)
        setattr(config, family.intermediate, self.intermediate)
        if family.key_values is not None:
            setattr(config, family.key_values, self.key_values)
        if family.head_size is not None:
            setattr(config, family.head_size, self.head_size)


def shape_of(config: Any, family: Family, stacks: Sequence[Stack]) -> Shape:
    """The shape that a configuration describes."""
    width, heads = getattr(config, family.width), getattr(config, family.heads)
    key_values = getattr(config, family.key_values) if family.key_values else None
    # Qwen2 has the field only where it differs.
    size = getattr(config, family.head_size, None) if family.head_size else None
    return Shape(
        layers=tuple(stack.counts[0] for stack in stacks),
        heads=heads,
        key_values=key_values or heads,
        intermediate=getattr(config, family.intermediate) or 4 * width,
        width=width,
        head_size=size or width // heads,
    )
