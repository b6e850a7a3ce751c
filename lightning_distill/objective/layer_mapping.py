"""Which layer of the student goes with which layer of the teacher."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

STRATEGIES = ("uniform", "last", "first", "skip", "every_2")
EVERY = r"every_([1-9]\d*)"
# Mappings that need the tensors of layers: the most alike, each with each, all in one comparison.
AUTO, EMD, TOGETHER = "auto", "emd", "together"


def check_mapping(mapping: str | Sequence[Sequence[int]]) -> None:
    """Refuse a mapping of a term that has an unknown name.

    Raises:
        ValueError: that lists those there are.
    """
    if not isinstance(mapping, str) or re.fullmatch(EVERY, mapping):
        return
    known = (*STRATEGIES, AUTO, EMD, TOGETHER)
    if mapping not in known:
        raise ValueError(_unknown(mapping, known))


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
            occur many times. With more students than teachers only `uniform` and pairs work.

    Raises:
        ValueError: for an unknown strategy, one that needs more layers than there are, or a
            layer that does not exist.
    """
    if students < 1 or teachers < 1:
        raise ValueError(f"There are no layers to pair: {students} and {teachers}.")
    if isinstance(mapping, str):
        chosen = [_partner(i, students, teachers, mapping) for i in range(students)]
        if max(chosen) >= teachers or min(chosen) < 0:
            raise ValueError(
                f"Mapping {mapping!r} needs more layers than the teacher's {teachers} for the "
                f"student's {students}; use uniform, or list the layers."
            )
        return list(enumerate(chosen))
    pairs = []
    for pair in mapping:
        if isinstance(pair, str | int) or len(pair) != 2:
            raise ValueError(f"A pair of layers is [student, teacher], got {pair!r}.")
        s, t = (
            _existing(number, count, role)
            for number, count, role in zip(
                pair, (students, teachers), ("student", "teacher"), strict=True
            )
        )
        pairs.append((s, t))
    if not pairs:
        raise ValueError("The mapping has no pairs; write [[student, teacher], ...] or uniform.")
    return pairs


def kept_layers(
    kept: int | None, of: int, keep: str | Sequence[int] = "uniform", name: str = "layers"
) -> list[int]:
    """Which of the teacher's `of` layers a smaller copy keeps, counted from 0 at the bottom.

    Args:
        kept: how many; may be `None` if `keep` lists them.
        of: how many there are.
        keep: a strategy of [`pair_layers`][], or the numbers; negative ones count from the top.
        name: of the argument that says how many, in errors.

    Raises:
        ValueError: if `kept` is not from 1 to `of`, or for a layer that does not exist or is
            listed twice.
    """
    if kept is not None and (isinstance(kept, bool) or not isinstance(kept, int)):
        raise ValueError(f"`{name}` must be a whole number, got {kept!r}.")
    if kept is not None and not 1 <= kept <= of:
        raise ValueError(f"`{name}` must be from 1 to {of}, as the teacher has, got {kept}.")
    if isinstance(keep, str):
        if kept is None:
            raise ValueError(
                f"`{name}` says how many of the teacher's {of} layers to keep; set it."
            )
        return [t for _, t in pair_layers(kept, of, keep)]
    numbers = [_existing(number, of, "teacher") for number in keep]
    if not numbers:
        raise ValueError("`keep` lists no layers; write their numbers, or uniform.")
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"`keep` lists a layer twice: {list(keep)} of {of} layers.")
    if kept not in (None, len(numbers)):
        raise ValueError(
            f"`{name}` is {kept}, but `keep` lists {len(numbers)}; set {name}=null to keep these."
        )
    return numbers


def _partner(i: int, students: int, teachers: int, mapping: str) -> int:
    if mapping == "uniform":
        # Half rounds up; a student with more layers starts on the teacher's first.
        return max((2 * (i + 1) * teachers + students) // (2 * students) - 1, 0)
    if mapping == "last":
        return teachers - students + i
    if mapping == "first":
        return i
    if mapping == "skip":
        return (i + 1) * (teachers // students) - 1
    every = re.fullmatch(EVERY, mapping)
    if every:
        return (i + 1) * int(every[1]) - 1
    raise ValueError(_unknown(mapping, STRATEGIES))


def _unknown(mapping: str, known: Sequence[str]) -> str:
    near = get_close_matches(mapping, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"The mapping of layers must be one of {', '.join(known)} (or another every_k), or "
        f"pairs of numbers, got {mapping!r}.{hint}"
    )


def _existing(number: int, count: int, role: str) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError(f"A layer is a whole number, got {number!r} for the {role}.")
    if not -count <= number < count:
        raise ValueError(
            f"The {role} has no layer {number}: it has {count}, numbered 0 to {count - 1}."
        )
    return number % count
