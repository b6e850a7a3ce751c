"""Which teacher a quantised student has where nobody names one: itself, before it was quantised."""

import sys
from collections.abc import Sequence

from .experiment_choices import choice_of_experiment
from .overrides import key_of

UNQUANTISED = "unquantised"


def with_teacher(words: Sequence[str]) -> list[str]:
    """The words of a command, with the teacher of a loaded student that is quantised.

    Args:
        words: flags and overrides; those that name a teacher, or another kind of student, stay.
    """
    typed = {key_of(word): word.partition("=")[2] for word in words if not word.startswith("-")}
    loaded = typed.get("student") == "pretrained"
    how = [value for key, value in typed.items() if key.partition("[")[0] == "student.quantization"]
    if not loaded or not how or how[0] in ("", "null"):
        return list(words)
    named = any(key.lstrip("~").partition(".")[0] == "teacher" for key in typed)
    job = typed.get("job", "distill")
    chosen = choice_of_experiment(typed.get("experiment"), "teacher")
    if (
        named
        or chosen
        or job not in ("distill", "cache", "inspect", "check")
        or typed.get("resume")
    ):
        return list(words)
    print(
        f"Teacher: the student before it is quantised: teacher={UNQUANTISED}",
        file=sys.stderr,
    )
    return [*words, f"teacher={UNQUANTISED}"]
