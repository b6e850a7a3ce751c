"""A run that is a trial of a search, and what became of it."""

import json
from pathlib import Path
from typing import Any

from ..overrides import quoted

# In the directory of a search: the study, the trials, and what was found so far.
STUDY, TRIALS, RESULT = "search.db", "trials", "search.json"
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


def is_trial(run: Path) -> bool:
    """Whether a run is a trial of a search, which has no report of its own."""
    folder = run.absolute()
    return folder.parent.name == TRIALS and (folder.parent.parent / STUDY).is_file()


def keeps_student(run: Path) -> bool:
    """Whether a run is a trial that has come to its end and keeps its student."""
    found = _found(run) if is_trial(run) else None
    return found is not None and found["state"] == COMPLETE and (run / "student").is_dir()


def why_no_report(run: Path) -> str:
    """What became of a trial, and what can be done with it.

    Args:
        run: its directory.
    """
    found, what = _found(run), f"{run} is a trial of a search"
    if found is None:
        search = run.absolute().parent.parent
        return f"{what} that has not ended: go on with the search, {quoted('resume', search)}."
    train = f"Train it to the end: {found['command']}"
    if found["state"] == COMPLETE and (run / "student").is_dir():
        return f"{what}, which has no report. {train}"
    if found["state"] == COMPLETE:
        return f"{what}, and its weights were not kept, for another student is better. {train}"
    ended = "ended early" if found["state"] == PRUNED else "failed"
    return f"{what} that {ended}: {str(found['reason']).rstrip('.')}. {train}"


def _found(run: Path) -> dict[str, Any] | None:
    """What the search has written of a trial; `None` of one that has not ended."""
    path = run.absolute().parent.parent / RESULT
    if not path.is_file():
        return None
    trials: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["trials"]
    folder = f"{TRIALS}/{run.absolute().name}"
    return next((trial for trial in trials if trial["folder"] == folder), None)
