"""The shape of a model that has so many parameters."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from .shape import Shape
from .units import Anatomy

# How far the size may be from what is asked, as a share of it.
NEAR = 0.02
# Below this share of layers, heads or neurons the hidden width is cut as well.
LEAST = 0.25
# Widths are multiples of it, where the size can be reached so: tensor cores work in such steps.
STEP = 8
# So many hidden widths are tried.
WIDTHS = 16
LETTERS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


def asked_size(parameters: Any, of: int) -> int:
    """How many parameters are asked for.

    Args:
        parameters: a share of the teacher's, as `40%` or 0.4, or a number, as `22M` or 22000000.
        of: how many the teacher has.

    Raises:
        ValueError: for what is neither, and for more than the teacher has.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([KMB%]?)\s*", str(parameters), re.I)
    if found is None or isinstance(parameters, bool):
        raise ValueError(
            "`parameters` must be a share of the teacher's, as 40%, or a number, as 22M, got "
            f"{parameters!r}."
        )
    number, letter = float(found[1]), found[2].upper()
    if letter == "%":
        size = of * number / 100
    elif not letter and number <= 1:
        size = of * number
    else:
        size = number * LETTERS[letter]
    if not 0 < size <= of:
        raise ValueError(
            f"`parameters` must be more than 0 and at most the teacher's {of:,}, got {parameters}, "
            f"which is {round(size):,}."
        )
    return round(size)


@dataclass(frozen=True)
class _Found:
    """A shape of many that are tried, and its size."""

    start: Shape
    layers: tuple[int, ...]
    neurons: int
    count: int

    @property
    def shape(self) -> Shape:
        return replace(self.start, layers=self.layers, intermediate=self.neurons)

    def misses(self, target: int) -> float:
        """How far the size is from another, as a share of that."""
        return abs(self.count - target) / target


def find_shape(
    anatomy: Anatomy,
    start: Shape,
    named: Collection[str],
    parameters: Any,
    of: int | None = None,
) -> Shape:
    """The shape nearest to even cuts that has as many parameters as are asked for.

    Layers, feed-forward neurons and heads are cut, by shares as equal as there are; the hidden
    width only where that would leave less than a quarter of one of them. Where the size of a head
    follows from the width, heads are cut with the width. What is named stays as it is.

    Args:
        anatomy: of the teacher.
        start: the teacher's shape, with what is named written into it.
        named: what of `layers`, `heads`, `intermediate` and `width` is fixed.
        parameters: see [`asked_size`][].
        of: how many the teacher has, if it is more than the model whose anatomy it is.

    Raises:
        ValueError: if no shape has this size within 2 %, saying which sizes there are.
    """
    teacher = of or anatomy.count(anatomy.shape)
    target = asked_size(parameters, teacher)
    free = [n for n in ("layers", "heads", "intermediate", "width") if n not in named]
    if anatomy.family.tied and "width" in free:
        free.remove("heads")
    with_width = "width" in free
    near: list[_Found] = []
    for cut_width in (False, True) if with_width else (False,):
        axes = free if cut_width else [n for n in free if n != "width"]
        # Without the width there may be no other way.
        least = 0.0 if cut_width or not with_width else LEAST
        for step in (STEP, 1):
            near = list(_shapes(anatomy, start, axes, target, step))
            fitting = [
                f for f in near if f.misses(target) <= NEAR and anatomy.refusal(f.shape) is None
            ]
            shares = [_shares(anatomy.shape, f.shape, axes) or [1.0] for f in fitting]
            ranked = [
                (round(max(s) / min(s), 6), f.misses(target), i)
                for i, (f, s) in enumerate(zip(fitting, shares, strict=True))
                if min(s) >= least
            ]
            if ranked:
                return fitting[min(ranked)[-1]].shape
    raise ValueError(_out_of_reach(anatomy, start, free, named, parameters, target, near, teacher))


def _out_of_reach(
    anatomy: Anatomy,
    start: Shape,
    free: Collection[str],
    named: Collection[str],
    parameters: Any,
    target: int,
    near: Sequence[_Found],
    teacher: int,
) -> str:
    """What sizes there are instead."""
    smallest, largest = _ends(anatomy, start, free)
    counts = [smallest, *(f.count for f in near), largest]
    nearest = ""
    if smallest < target < largest:
        below, above = max(n for n in counts if n < target), min(n for n in counts if n > target)
        nearest = f"; the nearest have {below:,} and {above:,}"
    cut = ["vocabulary"] if anatomy.count(anatomy.shape) < teacher else []
    fixed = f"With {', '.join([*cut, *sorted(named)])} as named, the" if [*cut, *named] else "The"
    told = "Ask for another size, or name fewer parts."
    if str(parameters).strip() == str(target) and target <= 100:
        # Nobody wants a student of forty parameters.
        told = f"A share has a percent sign: student.parameters={target}%."
    return (
        f"student.parameters={parameters} asks for {target:,} parameters, and no student that is "
        f"cut from this teacher has as many, within {NEAR:.0%}. {fixed} smallest has {smallest:,} "
        f"({smallest / teacher:.1%} of the teacher's) and the largest {largest:,} "
        f"({largest / teacher:.1%}){nearest}. {told}"
    )


def _ends(anatomy: Anatomy, start: Shape, free: Collection[str]) -> tuple[int, int]:
    """The sizes of the smallest and of the largest student."""
    shape = start
    if "layers" in free:
        shape = replace(shape, layers=(1,) * len(shape.layers))
    if "width" in free:
        shape = replace(shape, width=anatomy.shape.head_size if anatomy.family.tied else 1)
    if "heads" in free or (anatomy.family.tied and "width" in free):
        shape = shape.with_heads(1 if shape.key_values == 1 else shape.group)
    if "intermediate" in free:
        shape = replace(shape, intermediate=1)
    return anatomy.count(shape), anatomy.count(start)


def _shapes(
    anatomy: Anatomy, start: Shape, axes: Collection[str], target: int, step: int
) -> Iterator[_Found]:
    """All layers, heads and widths, each with the neurons that come nearest to the size."""
    whole, tied = anatomy.shape, anatomy.family.tied
    longest = max(start.layers)
    layers = [start.layers]
    if "layers" in axes:
        layers = [
            tuple(max(round(n * of / longest), 1) for of in start.layers)
            for n in range(1, longest + 1)
        ]
    heads, widths = [start.heads], [start.width]
    if "heads" in axes:
        unit = 1 if whole.key_values == 1 else whole.group
        heads = list(range(unit, whole.heads + 1, unit))
    if "width" in axes and tied:
        widths = [n * whole.head_size for n in range(1, whole.heads + 1)]
    elif "width" in axes:
        # So few that all of them are tried in no time; the neurons make up for the rest.
        stride = max(whole.width // (WIDTHS * step), 1) * step
        widths = [*range(stride, whole.width, stride), whole.width]
    for h, w in product(heads, widths):
        shape = replace(start, width=w).with_heads(w // whole.head_size if tied else h)
        sizes = [anatomy.counts(replace(shape, intermediate=i)) for i in (0, 1)]
        for n in layers:
            none, one = (
                first + sum((k - 1) * each for k, each in zip(n, more, strict=True))
                for first, more in sizes
            )
            neurons = [shape.intermediate]
            if "intermediate" in axes:
                # The size grows by the same with each neuron.
                below = int((target - none) / (one - none) // step) * step
                most = whole.intermediate
                fits = (min(max(i, min(step, most)), most) for i in (below, below + step))
                neurons = sorted(set(fits))
            for number in neurons:
                yield _Found(shape, n, number, none + number * (one - none))


def _shares(whole: Shape, shape: Shape, axes: Collection[str]) -> list[float]:
    found = {
        "layers": sum(shape.layers) / sum(whole.layers),
        "heads": shape.heads / whole.heads,
        "intermediate": shape.intermediate / whole.intermediate,
        "width": shape.width / whole.width,
    }
    return [found[name] for name in axes]
