"""The shape of a model that has so many parameters."""

import re
from collections.abc import Collection, Iterator
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
    shape: Shape
    count: int
    unevenness: float


def find_shape(anatomy: Anatomy, start: Shape, named: Collection[str], parameters: Any) -> Shape:
    """The shape nearest to even cuts that has as many parameters as are asked for.

    Layers, feed-forward neurons and heads are cut, by shares as equal as there are; the hidden
    width only where that would leave less than a quarter of one of them. Where the size of a head
    follows from the width, heads are cut with the width. What is named stays as it is.

    Args:
        anatomy: of the teacher.
        start: the teacher's shape, with what is named written into it.
        named: what of `layers`, `heads`, `intermediate` and `width` is fixed.
        parameters: see [`asked_size`][].

    Raises:
        ValueError: if no shape has this size within 2 %, saying which sizes there are.
    """
    target = asked_size(parameters, anatomy.count(anatomy.shape))
    free = [n for n in ("layers", "heads", "intermediate", "width") if n not in named]
    if anatomy.family.tied and "width" in free:
        free.remove("heads")
    seen: list[int] = []
    narrower = [True] if "width" in free else []
    for cut_width in (False, *narrower):
        for step in (STEP, 1):
            axes = free if cut_width else [n for n in free if n != "width"]
            least = 0.0 if cut_width else LEAST
            best: _Found | None = None
            for found in _shapes(anatomy, start, axes, target, step):
                seen.append(found.count)
                near = abs(found.count - target) <= NEAR * target
                enough = min(_shares(anatomy.shape, found.shape, axes), default=1) >= least
                # Without the width there may be no other way.
                if near and (enough or not narrower):
                    best = _better(best, found, target)
            if best is not None:
                return best.shape
    teacher = anatomy.count(anatomy.shape)
    low, high = min(seen), max(seen)
    below = max((n for n in seen if n < target), default=None)
    above = min((n for n in seen if n > target), default=None)
    nearest = "" if below is None or above is None else f"; nearest are {below:,} and {above:,}"
    fixed = f" With {', '.join(sorted(named))} as named," if named else ""
    raise ValueError(
        f"student.parameters={parameters} asks for {target:,} parameters, and no student that is "
        f"cut from this teacher has as many, within {NEAR:.0%}.{fixed or ' Here'} the smallest has "
        f"{low:,} ({low / teacher:.1%} of the teacher's) and the largest {high:,} "
        f"({high / teacher:.1%}){nearest}. Ask for a size between, or name fewer parts."
    )


def _better(best: _Found | None, found: _Found, target: int) -> _Found:
    if best is None:
        return found
    return min(best, found, key=lambda f: (round(f.unevenness, 6), abs(f.count - target)))


def _shapes(
    anatomy: Anatomy, start: Shape, axes: Collection[str], target: int, step: int
) -> Iterator[_Found]:
    """All layers, heads and widths, each with the neurons that come nearest to the size."""
    whole = anatomy.shape
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
    if "width" in axes and anatomy.family.tied:
        widths = [n * whole.head_size for n in range(1, whole.heads + 1)]
    elif "width" in axes:
        # At most so many that all of them are tried in no time.
        stride = max(-(-whole.width // (64 * step)), 1) * step
        widths = [*range(stride, whole.width, stride), whole.width]
    for n, h, w in product(layers, heads, widths):
        shape = replace(start, layers=n, width=w)
        shape = shape.with_heads(w // whole.head_size if anatomy.family.tied else h)
        for neurons in _neurons(anatomy, shape, "intermediate" in axes, target, step):
            made = replace(shape, intermediate=neurons)
            shares = _shares(whole, made, axes)
            uneven = max(shares) / min(shares) if shares else 1.0
            yield _Found(made, anatomy.count(made), uneven)


def _neurons(anatomy: Anatomy, shape: Shape, free: bool, target: int, step: int) -> list[int]:
    most = anatomy.shape.intermediate
    if not free:
        return [shape.intermediate]
    none, one = (anatomy.count(replace(shape, intermediate=n)) for n in (0, 1))
    exact = (target - none) / (one - none)
    least = min(step, most)
    near = {int(exact // step) * step, (int(exact // step) + 1) * step}
    # All of them is a number too, whatever it is a multiple of.
    return sorted({min(max(n, least), most) for n in near})


def _shares(whole: Shape, shape: Shape, axes: Collection[str]) -> list[float]:
    found = {
        "layers": sum(shape.layers) / sum(whole.layers),
        "heads": shape.heads / whole.heads,
        "intermediate": shape.intermediate / whole.intermediate,
        "width": shape.width / whole.width,
    }
    return [found[name] for name in axes]
