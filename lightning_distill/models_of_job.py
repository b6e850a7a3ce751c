"""Which models of a configuration a job does without."""

BOTH = ("student", "teacher")
# Of a model that is there already, whatever else is typed.
OF_A_MODEL = ("evaluate", "export")


def unused_models(job: str, cut_from_teacher: bool) -> tuple[str, ...]:
    """Those that a job does not make; a job of one's own may make both.

    Args:
        job: its name, as it is typed.
        cut_from_teacher: whether the student is made of the teacher's weights.
    """
    if job in OF_A_MODEL:
        return BOTH
    # It learns from labels alone.
    return ("teacher",) if job == "finetune" and not cut_from_teacher else ()
