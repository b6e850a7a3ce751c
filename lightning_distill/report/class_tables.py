"""Tables over the classes of test rows: shares with intervals, classes, confusions and rows."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from .predictions import Predictions

Table = tuple[str, Sequence[str], str, Sequence[str], Sequence[Sequence[str]]]
Rows = Int64[np.ndarray, " rows"]
# Lines of a table; more nobody reads.
MOST = 20
# The models of a run, in the order in which they are shown, by what `report.json` calls them; with
# their folders, and what the files there call them.
MODELS = {
    "teacher": ("", "teacher"),
    "baseline": ("baseline", "student"),
    "control": ("control", "student"),
    "student": ("", "student"),
}
TEACHER, ALONE, _, STUDENT = MODELS
# The head of a column with the numbers of rows.
ROW = "row"


def predictions_of(directory: Path) -> dict[str, Predictions]:
    """What each model of a run predicts for its test rows, where the run has kept it.

    Args:
        directory: of the run.

    Returns:
        By `teacher`, `baseline`, `control` and `student`, those that there are.
    """
    found = {}
    for model, (folder, of) in MODELS.items():
        one = Predictions.load(directory / folder, of)
        if one is not None and len(one.row):
            found[model] = one
    return found


def class_tables(models: Mapping[str, Predictions], titles: Mapping[str, str]) -> Iterator[Table]:
    """Title, models, note, heads and lines of each table that there is something to show in.

    Args:
        models: as [`predictions_of`][] finds them.
        titles: what each is called in tables.
    """
    if not models:
        return
    last = models.get(STUDENT) or list(models.values())[-1]
    same = {model: one for model, one in models.items() if one.is_of_same_rows(last)}
    yield from _by_class(same, titles, last)
    for model in (TEACHER, STUDENT):
        if model in same:
            yield from _confusions(model, titles[model], same[model])
    yield from _rows(same)


def _by_class(
    models: Mapping[str, Predictions], titles: Mapping[str, str], last: Predictions
) -> Iterator[Table]:
    classes = sorted(set(last.label.tolist()))
    if len(classes) < 2:
        return
    shares = {
        model: {c: float(one.right[one.label == c].mean()) for c in classes}
        for model, one in models.items()
    }
    change = {c: 0.0 for c in classes}
    if {ALONE, STUDENT} <= shares.keys():
        change = {c: shares[STUDENT][c] - shares[ALONE][c] for c in classes}
    classes.sort(key=lambda c: -abs(change[c]))
    heads = ["class", *(titles[model] for model in models)]
    heads += [*(["change"] if any(change.values()) else []), "rows"]
    lines = []
    for c in classes[:MOST]:
        line = [last.name(c), *(f"{own[c]:.3f}" for own in shares.values())]
        line += [f"{change[c]:+.3f}"] if any(change.values()) else []
        lines.append([*line, f"{int((last.label == c).sum()):,}"])
    note = "The share of each class's rows that is right."
    if any(change.values()):
        note += " The change is that from alone to distilled, the largest first."
    if len(classes) > MOST:
        note += f" {MOST} of {len(classes)} classes are shown."
    yield "By class", list(models), note, heads, lines


def _confusions(model: str, title: str, one: Predictions) -> Iterator[Table]:
    wrong = one.label != one.predicted
    pairs, counts = np.unique(
        np.stack([one.label[wrong], one.predicted[wrong]]), axis=1, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")[:MOST]
    lines = [
        [one.name(int(pairs[0, i])), one.name(int(pairs[1, i])), str(int(counts[i]))] for i in order
    ]
    if lines:
        note = f"Of {len(one.row):,} test rows {int(wrong.sum()):,} are wrong; most often:"
        yield (
            f"What is taken for what: {title}",
            [model],
            note,
            ["is", "is taken for", "rows"],
            lines,
        )


def differing(models: Mapping[str, Predictions]) -> tuple[Rows, Rows]:
    """On which rows teacher and student predict different classes.

    Args:
        models: as [`predictions_of`][] finds them.

    Returns:
        The places of all such rows; and of those that are shown, on which they differ most, their
        numbers in the data.
    """
    teacher, student = models.get(TEACHER), models.get(STUDENT)
    none = np.zeros(0, dtype=np.int64)
    if teacher is None or student is None or not teacher.is_of_same_rows(student):
        return none, none
    differs = np.flatnonzero(teacher.predicted != student.predicted)
    # Where both are sure of what they say they differ most.
    sure = teacher.confidence[differs] * student.confidence[differs]
    places = differs[np.argsort(-sure, kind="stable")]
    return places, student.row[places[:MOST]]


def _rows(models: Mapping[str, Predictions]) -> Iterator[Table]:
    differs, _ = differing(models)
    if not len(differs):
        return
    teacher, student = models[TEACHER], models[STUDENT]
    lines = [
        [
            str(int(student.row[i])),
            student.name(int(student.label[i])),
            student.name(int(teacher.predicted[i])),
            f"{teacher.confidence[i]:.3f}",
            student.name(int(student.predicted[i])),
            f"{student.confidence[i]:.3f}",
        ]
        for i in differs[:MOST]
    ]
    note = (
        f"They differ on {len(differs):,} of {len(student.row):,} rows. First come those where "
        "both are sure: the probability that each gives its own answer stands beside it."
    )
    heads = [ROW, "is", "teacher says", "sure", "student says", "sure"]
    yield "Where teacher and student differ most", [TEACHER, STUDENT], note, heads, lines
