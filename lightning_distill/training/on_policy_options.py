"""Options of on-policy distillation, and what of them goes together."""

import math
from typing import Any

from ..schedules import Schedule

Share = float | int | Schedule


def check_options(
    student_fraction: Share,
    teacher_fraction: Share,
    max_new_tokens: int,
    temperature: float,
    teacher_temperature: float,
    beams: int,
    top_k: int | None,
    top_p: float | None,
    prompt_tokens: int | None,
    replay_size: int,
    replay_fraction: float,
) -> None:
    """Refuse options that are out of range, or that exclude each other.

    The arguments are those of [`OnPolicyDistillationModule`][].

    Raises:
        ValueError: that names the option and what it may be.
    """
    _check_shares(student_fraction, teacher_fraction)
    _check_share("replay_fraction", replay_fraction)
    _check_whole("max_new_tokens", max_new_tokens, 1)
    _check_whole("beams", beams, 1)
    _check_whole("replay_size", replay_size, 0)
    for name, count in (("prompt_tokens", prompt_tokens), ("top_k", top_k)):
        if count is not None:
            _check_whole(name, count, 1)
    for name, value in (
        ("temperature", temperature),
        ("teacher_temperature", teacher_temperature),
    ):
        if not 0 <= value < math.inf:
            raise ValueError(
                f"`{name}` must be finite and not negative (0 takes the likeliest token), "
                f"got {value}."
            )
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"`top_p` must be above 0 and at most 1, or null, got {top_p}.")
    if beams > 1 and teacher_temperature > 0:
        raise ValueError(
            f"beams={beams} searches and teacher_temperature={teacher_temperature} samples: "
            "set teacher_temperature=0, or beams=1."
        )
    if replay_fraction > 0 and replay_size == 0:
        raise ValueError(
            f"replay_fraction is {replay_fraction} and replay_size is 0, so that nothing is "
            "kept to be replayed: set replay_size to a number of texts, such as 1000."
        )


def largest(share: Share) -> float:
    """The largest value that a share ever has."""
    return share.largest if isinstance(share, Schedule) else share


def _check_share(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be a number from 0 to 1, got {value!r}.")


def _check_shares(student: Share, teacher: Share) -> None:
    for i in range(101):
        now = []
        for name, share in (("student_fraction", student), ("teacher_fraction", teacher)):
            value = share.at(i / 100) if isinstance(share, Schedule) else share
            _check_share(name, value)
            now.append(value)
        if sum(now) > 1 + 1e-9:
            raise ValueError(
                "student_fraction and teacher_fraction are shares of the same batches and must sum "
                f"to 1 at most, got {now[0]:.4g} and {now[1]:.4g} at {i} % of the run."
            )


def _check_whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"`{name}` must be a whole number, at least {least}, got {value!r}.")
