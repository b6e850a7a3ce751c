"""Which layers a student keeps of the teacher's, as `layers` and `keep` say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..objective.layer_mapping import kept_layers
from .layer_stacks import Stack


@dataclass(frozen=True)
class Kept:
    """Layers of one stage of a stack that are kept.

    Attributes:
        of: how many the teacher has.
        numbers: of those that are kept, counted from 0, in their new order.
        strategy: that chose them; `None` if they were listed.
    """

    of: int
    numbers: tuple[int, ...]
    strategy: str | None

    def with_the_first(self) -> "Kept":
        """As many, of which the first is the teacher's first; unless they were listed."""
        if self.strategy is None or self.numbers[0] == 0:
            return self
        more = len(self.numbers) - 1
        rest = kept_layers(more, self.of - 1, self.strategy) if more else []
        return Kept(self.of, (0, *(1 + n for n in rest)), self.strategy)


def which_layers(
    stacks: Sequence[Stack], layers: Any, keep: Any, model: str
) -> list[tuple[Kept, ...]]:
    """What is kept of each stage of each stack.

    Args:
        stacks: of the teacher.
        layers: see [`from_teacher`][lightning_distill.students.from_teacher].
        keep: see there.
        model: what the teacher is called in errors.

    Raises:
        ValueError: saying what the model has and what to type.
    """
    _check_names("layers", layers, stacks, model)
    _check_names("keep", keep, stacks, model)
    if len(stacks) > 1 and not isinstance(keep, str | Mapping):
        raise ValueError(
            f"`keep` lists layers, and {_has(model, stacks)}: name them, as in "
            f"student.layers=null student.keep={{{stacks[0].name}: [0], {stacks[1].name}: [0]}}."
        )
    found = []
    for stack in stacks:
        count, which = _of(layers, stack.name, None), _of(keep, stack.name, "uniform")
        named = isinstance(layers, Mapping) or isinstance(keep, Mapping)
        if named and count is None and isinstance(which, str):
            # What is not named stays as it is.
            count = list(stack.counts) if stack.staged else stack.counts[0]
        choose = _of_stages if stack.staged else _of_one
        found.append(choose(stack, count, which, model))
    return found


def _of_one(stack: Stack, count: Any, which: Any, model: str) -> tuple[Kept, ...]:
    (of,) = stack.counts
    what = f"layers.{stack.name}" if stack.name else "layers"
    if isinstance(count, list | tuple):
        raise ValueError(
            f"`{what}` must be a whole number, got {count!r}: {model} has {of} layers and no "
            "stages. Numbers of layers go in student.keep."
        )
    if not stack.shared:
        return (_kept(count, of, which, what),)
    if not isinstance(which, str):
        raise ValueError(
            f"{model} runs the same layer {of} times, so that `keep` can list none: say how often "
            f"it shall run, as in student.layers={max(of // 2, 1)} student.keep=uniform."
        )
    return (_kept(count, of, "first", what),)


def _of_stages(stack: Stack, counts: Any, which: Any, model: str) -> tuple[Kept, ...]:
    of = stack.counts
    listed = which if isinstance(which, list | tuple) else [which] * len(of)
    each = isinstance(which, str) or all(isinstance(w, list | tuple) for w in listed)
    if counts is None and not isinstance(which, str):
        counts = [None] * len(of)
    right = isinstance(counts, list | tuple) and len(counts) == len(of) == len(listed) and each
    if not right or not isinstance(counts, list | tuple):
        halves = ",".join(str(max(n // 2, 1)) for n in of)
        firsts = ",".join("[0]" for _ in of)
        raise ValueError(
            f"{model} has {stack.describe()}: say how many of each to keep, as in "
            f"student.layers=[{halves}], or list them, as in student.layers=null "
            f"student.keep=[{firsts}]; got layers={counts!r} and keep={which!r}."
        )
    names = [f"layers[{i}]" for i in range(len(of))]
    return tuple(_kept(*stage) for stage in zip(counts, of, listed, names, strict=True))


def _kept(count: Any, of: int, which: Any, name: str) -> Kept:
    numbers = tuple(kept_layers(count, of, which, name))
    return Kept(of, numbers, which if isinstance(which, str) else None)


def _of(given: Any, name: str, default: Any) -> Any:
    return given.get(name, default) if isinstance(given, Mapping) else given


def _has(model: str, stacks: Sequence[Stack]) -> str:
    return f"{model} has {' and '.join(stack.describe() for stack in stacks)}"


def _check_names(argument: str, given: Any, stacks: Sequence[Stack], model: str) -> None:
    if not isinstance(given, Mapping):
        return
    names = [stack.name for stack in stacks if stack.name]
    wrong = [str(name) for name in given if name not in names]
    if not wrong:
        return
    if not names:
        # One stack, which has no name.
        raise ValueError(
            f"`{argument}` names {', '.join(wrong)}, and {_has(model, stacks)} in one list: leave "
            f"the name out, as in student.{argument}={next(iter(given.values()))}."
        )
    raise ValueError(
        f"`{argument}` names {', '.join(wrong)}, and {_has(model, stacks)}: name "
        f"{' or '.join(names)}, as in student.layers={{{names[0]}: 1}}; what is not named keeps "
        "all its layers."
    )
