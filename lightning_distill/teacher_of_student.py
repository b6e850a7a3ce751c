"""Which teacher a quantised student has where nobody names one: itself, before it was quantised."""

import re
import sys
from collections.abc import Mapping, Sequence

from .experiment_choices import choice_of_experiment, setting_of_experiment
from .models_of_job import unused_models
from .overrides import key_of

UNQUANTISED = "unquantised"
# In the space of a search, as in job.space={student.quantization:[int8,int4]}.
SEARCHED = re.compile(r"\bstudent\W{1,4}quantization\b")


def with_teacher(words: Sequence[str]) -> list[str]:
    """The words of a command, with the teacher of a loaded student that is quantised.

    Args:
        words: flags and overrides; those that name a teacher, or another kind of student, stay.
    """
    typed = {key_of(word): word.partition("=")[2] for word in words if not word.startswith("-")}
    experiment = typed.get("experiment")
    student = typed.get("student") or choice_of_experiment(experiment, "student")
    named = any(key.lstrip("~").partition(".")[0] == "teacher" for key in typed)
    if (
        student != "pretrained"
        or not _is_quantised(typed)
        or named
        or choice_of_experiment(experiment, "teacher")
        or "teacher" in unused_models(typed.get("job", "distill"), cut_from_teacher=False)
        or typed.get("resume")
    ):
        return list(words)
    print(
        f"Teacher: the student before it is quantised: teacher={UNQUANTISED}",
        file=sys.stderr,
    )
    return [*words, f"teacher={UNQUANTISED}"]


def _is_quantised(typed: Mapping[str, str]) -> bool:
    """Whether it is typed, searched, or a setting of the experiment."""
    if any(k.startswith("job.space") and SEARCHED.search(f"{k}={v}") for k, v in typed.items()):
        return True
    key = "student.quantization"
    how = [value for name, value in typed.items() if name.lstrip("~").partition("[")[0] == key]
    if how:
        return how[0] not in ("", "null")
    return setting_of_experiment(typed.get("experiment"), key) is not None
