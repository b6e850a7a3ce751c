"""Two models' labels, in one order."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .forward import with_logits

Names = Sequence[str] | Mapping[int, str] | None


def label_order(
    student: Names, teacher: Names, owners: tuple[str, str] = ("student", "teacher")
) -> list[int] | None:
    """Where each of the student's labels stands among the teacher's.

    Args:
        student: label names in order, or a configuration's `id2label`.
        teacher: the same of the teacher.
        owners: what an error calls the two sides.

    Returns:
        `order` such that `teacher_logits[..., order]` is in the student's order; `None` if they
        agree, or if one side has only generic names (LABEL_0, or numbers). Case and spaces
        around a name do not count, unless names differ by them alone.

    Raises:
        ValueError: if the names differ, or how many there are.
    """
    ours, theirs = _names(student), _names(teacher)
    first, second = owners
    if ours is None or theirs is None:
        return None
    if len(ours) != len(theirs):
        raise ValueError(
            f"The {first} has {len(ours)} labels ({_shown(ours)}), the {second} {len(theirs)} "
            f"({_shown(theirs)}). Give the {first} as many labels as the {second} (num_labels), "
            f"or choose a {second} of the same task."
        )
    if len(ours) == 1 or ours == theirs:
        return None
    for fold in (_folded, list):
        a, b = fold(ours), fold(theirs)
        if len(set(a)) == len(a) and sorted(a) == sorted(b):
            order = [b.index(name) for name in a]
            return None if order == list(range(len(order))) else order
    if _generic(ours) or _generic(theirs):
        return None
    both = set(_folded(ours)) & set(_folded(theirs))
    only = [[n for n in names if _folded([n])[0] not in both] for names in (ours, theirs)]
    raise ValueError(
        f"The {first}'s labels ({_shown(ours)}) are not the {second}'s ({_shown(theirs)}): "
        f"{_shown(only[0]) or 'nothing'} against {_shown(only[1]) or 'nothing'}. If they mean the "
        f"same, rename them in the {second}'s config.json (id2label) or in data.label_names; else "
        f"choose a {second} of the same task."
    )


def are_named(names: Names) -> bool:
    """Whether labels have names of their own, and not only numbers or LABEL_0."""
    found = _names(names)
    return found is not None and bool(found) and not _generic(found)


def reordered(outputs: Any, order: Sequence[int]) -> Any:
    """What a model returned, with the last dimension of its logits in another order."""
    return with_logits(outputs, lambda logits: logits[..., list(order)])


def _names(names: Names) -> list[str] | None:
    if names is None:
        return None
    if isinstance(names, Mapping):
        return [str(names[i]) for i in sorted(names, key=int)]
    return [str(name) for name in names]


def _folded(names: Sequence[str]) -> list[str]:
    return [name.strip().casefold() for name in names]


def _generic(names: Sequence[str]) -> bool:
    """Names that say nothing: numbered from 0, as transformers and plain data give them."""
    return all(re.fullmatch(rf"(label_)?{i}", n.lower()) for i, n in enumerate(names))


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
