"""A student cut from the teacher in every direction: layers, heads, neurons and hidden width."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from .find_size import find_shape
from .from_teacher import from_teacher
from .importance import Scores
from .layer_stacks import Stack
from .narrow import most_important, narrow
from .shape import Shape
from .units import Anatomy
from .which_layers import which_layers

IMPORTANCE = "importance"


def smaller_shape(
    anatomy: Anatomy,
    parameters: Any = None,
    layers: Any = None,
    heads: int | None = None,
    intermediate: int | None = None,
    width: int | None = None,
    keep: Any = "uniform",
    of: int | None = None,
) -> Shape:
    """The shape of a student, as it is asked for.

    Args:
        anatomy: of the teacher.
        parameters: how many it shall have; see [`find_shape`][]. Without it, what is not named
            stays as it is.
        layers: how many, or of each stack by name, as for
            [`from_teacher`][lightning_distill.students.from_teacher].
        heads: of each attention.
        intermediate: neurons of each feed-forward part.
        width: channels of the hidden states.
        keep: the layers, if they are listed.
        of: the parameters of the teacher, where it has lost some tokens already; then nothing else
            need be asked for.

    Raises:
        ValueError: if nothing is asked for, or what cannot be.
    """
    whole = anatomy.shape
    listed = not isinstance(keep, str)
    sizes = {"heads": heads, "intermediate": intermediate, "width": width}
    named = {name for name, size in sizes.items() if size is not None}
    if parameters is None and layers is None and not listed and not named and of is None:
        raise ValueError(
            "student=pruned must be told how small the student shall be: student.parameters=40%, "
            "or one of student.layers, student.heads, student.intermediate, student.width and "
            "student.vocabulary."
        )
    for name in sorted(named):
        _check(name, sizes[name], getattr(whole, name))
    shape = whole
    if layers is not None or listed:
        named.add("layers")
        shape = replace(shape, layers=_counts(anatomy, layers, keep))
    if anatomy.family.tied and named & {"heads", "width"}:
        heads = width = _tied(whole, heads, width) // whole.head_size
        width *= whole.head_size
        named |= {"heads", "width"}
    if heads is not None:
        shape = shape.with_heads(heads)
    shape = replace(
        shape,
        intermediate=shape.intermediate if intermediate is None else intermediate,
        width=shape.width if width is None else width,
    )
    if parameters is not None:
        return find_shape(anatomy, shape, named, parameters, of)
    refusal = anatomy.refusal(shape)
    if refusal is not None:
        raise ValueError(
            f"transformers takes no {type(anatomy.model).__name__} of this shape: {refusal} Name "
            "another student.heads or student.width."
        )
    return shape


def prune(
    anatomy: Anatomy,
    shape: Shape,
    scores: Scores,
    keep: Any = "uniform",
    label_names: Sequence[str] | None = None,
    freeze: str | Sequence[str] | None = None,
    dropout: bool | None = None,
) -> nn.Module:
    """A model of a smaller shape with the weights of the units that matter most.

    Args:
        anatomy: of the teacher, which stays as it is.
        shape: of the student.
        scores: how much each unit matters.
        keep: which layers: `importance`, or what
            [`from_teacher`][lightning_distill.students.from_teacher] takes.
        label_names: see there.
        freeze: see there.
        dropout: see there.

    Returns:
        A model of the teacher's class that shares no memory with it, in train mode on the CPU.
    """
    kept = most_important(anatomy, shape, scores)
    made = narrow(anatomy, replace(shape, layers=anatomy.shape.layers), kept)
    counts: Any = dict(zip([s.name for s in anatomy.stacks], shape.layers, strict=True))
    if len(counts) == 1:
        (counts,) = counts.values()
    if keep == IMPORTANCE:
        chosen = [_largest(anatomy, s, n, scores) for s, n in zip(
            anatomy.stacks, shape.layers, strict=True)]  # fmt: skip
        keep = dict(zip([s.name for s in anatomy.stacks], chosen, strict=True))
        if len(keep) == 1:
            (keep,) = keep.values()
    return from_teacher(made, counts, keep, label_names, freeze, dropout=dropout)


def _largest(anatomy: Anatomy, stack: Stack, count: int, scores: Scores) -> list[int]:
    """The layers of a stack that matter most, in order."""
    (path,) = stack.paths[0]
    own = scores.layers[path]
    order = own.sort(descending=True, stable=True).indices.tolist()
    first, second = (
        {n for n, _ in anatomy.model.get_submodule(f"{path}.{i}").named_parameters()}
        for i in (0, min(1, stack.counts[0] - 1))
    )
    if second - first:
        # That of ModernBERT lacks a norm: no other can take its place.
        order = [0, *(i for i in order if i)]
    return sorted(order[:count])


def _counts(anatomy: Anatomy, layers: Any, keep: Any) -> tuple[int, ...]:
    """How many layers of each stack are kept."""
    strategy = "uniform" if keep == IMPORTANCE else keep
    name = type(anatomy.model).__name__
    kept = which_layers(anatomy.stacks, layers, strategy, name)
    return tuple(len(stage.numbers) for stages in kept for stage in stages)


def _check(name: str, size: Any, most: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= most:
        raise ValueError(
            f"`{name}` must be a whole number from 1 to the teacher's {most}, got {size!r}."
        )


def _tied(whole: Shape, heads: int | None, width: int | None) -> int:
    """The width where it is the number of heads times the size of one."""
    size = whole.head_size
    if width is not None and width % size:
        raise ValueError(
            f"`width` must be a multiple of {size}, the size of a head, for this kind of model "
            f"makes its heads of the whole width, got {width}."
        )
    if heads is not None and width is not None and heads * size != width:
        raise ValueError(
            f"This kind of model makes its heads of the whole width: {heads} heads of {size} are a "
            f"width of {heads * size}, and student.width={width}. Name one of them."
        )
    return width if width is not None else (heads or 0) * size


__all__ = ["IMPORTANCE", "prune", "smaller_shape"]
