"""Which layer of the student goes with which layer of the teacher."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

STRATEGIES = ("uniform", "last", "first", "skip", "every_2")


def pair_layers(
    students: int, teachers: int, mapping: str | Sequence[Sequence[int]] = "uniform"
) -> list[tuple[int, int]]:
    """Pairs of layer numbers, counted from 0 at the bottom.

    Args:
        students: how many layers the student has.
        teachers: how many the teacher has.
        mapping: `uniform` spreads the student's layers evenly over the teacher's, the last on the
            last (TinyBERT, Jiao et al., 2020); `last` takes the teacher's last layers (PKD-last,
            Sun et al., 2019), `first` its first; `skip` every floor(teachers/students)-th from
            the bottom (PKD-skip); `every_2`, `every_3` and so on every k-th. Or pairs
            `[[student, teacher], ...]`, where negative numbers count from the top and a layer may
            occur many times.

    Raises:
        ValueError: for an unknown strategy, or a layer that does not exist.
    """
    if students < 1 or teachers < 1:
        raise ValueError(f"There are no layers to pair: {students} and {teachers}.")
    if isinstance(mapping, str):
        chosen = [_partner(i, students, teachers, mapping) for i in range(students)]
        if max(chosen) >= teachers or min(chosen) < 0:
            raise ValueError(
                f"Mapping {mapping!r} needs more layers than the teacher's {teachers} for the "
                f"student's {students}; use uniform, or pairs."
            )
        return list(enumerate(chosen))
    pairs = []
    for pair in mapping:
        if isinstance(pair, str | int) or len(pair) != 2:
            raise ValueError(f"A pair of layers is [student, teacher], got {pair!r}.")
        s, t = (
            _existing(int(number), count, role)
            for number, count, role in zip(
                pair, (students, teachers), ("student", "teacher"), strict=True
            )
        )
        pairs.append((s, t))
    if not pairs:
        raise ValueError("The mapping has no pairs; write [[student, teacher], ...] or uniform.")
    return pairs


def kept_layers(kept: int, of: int, keep: str | Sequence[int] = "uniform") -> list[int]:
    """Which of a model's `of` layers a smaller copy keeps, counted from 0 at the bottom.

    Args:
        kept: how many; with a list, its length.
        of: how many there are.
        keep: a strategy of [`pair_layers`][], or the numbers.
    """
    if isinstance(keep, str):
        return [t for _, t in pair_layers(kept, of, keep)]
    return [t for _, t in pair_layers(len(keep), of, list(enumerate(keep)))]


def _partner(i: int, students: int, teachers: int, mapping: str) -> int:
    if mapping == "uniform":
        return (2 * (i + 1) * teachers + students) // (2 * students) - 1
    if mapping == "last":
        return teachers - students + i
    if mapping == "first":
        return i
    if mapping == "skip":
        return (i + 1) * (teachers // students) - 1
    every = re.fullmatch(r"every_([1-9]\d*)", mapping)
    if every:
        return (i + 1) * int(every[1]) - 1
    near = get_close_matches(mapping, STRATEGIES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"The mapping of layers must be one of {', '.join(STRATEGIES)} (or another every_k), or "
        f"pairs of numbers, got {mapping!r}.{hint}"
    )


def _existing(number: int, count: int, role: str) -> int:
    if not -count <= number < count:
        raise ValueError(
            f"The {role} has no layer {number}: it has {count}, numbered 0 to {count - 1}."
        )
    return number % count
