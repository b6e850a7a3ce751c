"""The rows: what is in two splits or twice in one, and which classes there are."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn, Tensor

from ..cache.row_id import row_ids
from ..data.data import DataFacts
from ..data.some_rows import some_batches
from ..models.batch import labels_of, row_count, tensors
from ..models.inputs import model_inputs
from ..tasks import Task
from .finding import Finding, Level

# So much of a split is read. Of texts that is tens of thousands of rows.
BYTES = 64 * 2**20
# Shares from which on a finding is one. Real data sets have some rows twice.
IN_BOTH, NEARLY_ALL, TWICE, UNLIKE, ONE_CLASS = 0.05, 0.9, 0.5, 0.05, 0.95
# A class that so many validation rows should have by its share is missing there.
EXPECTED = 5


@dataclass
class Seen:
    """What was read of a split.

    Attributes:
        ids: who each row is, by what the student is given of it.
        labels: the class of each row, `None` without one; empty where rows have no classes.
        rows: how many were read.
        whole: whether these are all.
        comparable: whether rows are known by what is in them.
    """

    ids: list[bytes] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)
    rows: int = 0
    whole: bool = True
    comparable: bool = True

    @property
    def classes(self) -> Counter[int]:
        """How many rows each class has."""
        return Counter(label for label in self.labels if label is not None)


def check_rows(data: Any, student: nn.Module, task: Task) -> Iterator[Finding]:
    """Look at the training and the validation rows.

    Args:
        data: a data module that is set up.
        student: whose inputs say who a row is.
        task: of the labels.
    """
    train, validation = (read(data, split, student, task) for split in ("train", "validation"))
    yield from _repeated(train, validation)
    yield from _classes(train, validation, DataFacts(data))


def read(data: Any, split: str, student: nn.Module, task: Task) -> Seen:
    """Read a split, or as much of it as fits.

    Args:
        data: a data module that is set up.
        split: `train` or `validation`.
        student: whose inputs say who a row is.
        task: of the labels.
    """
    seen, size = Seen(), 0
    for batch in some_batches(data, split, BYTES, 256):
        if size > BYTES:
            seen.whole = False
            break
        size += sum(tensor.numel() * tensor.element_size() for tensor in tensors(batch))
        count = row_count(batch)
        seen.rows += count
        try:
            ids = row_ids(model_inputs(batch, student))
        except ValueError:
            # Something without bytes of its own.
            seen.comparable = False
        else:
            # A row of several texts is none of them.
            seen.comparable &= len(ids) == count
            seen.ids += [one.tobytes() for one in ids]
        labels = labels_of(batch)
        if not isinstance(labels, Tensor) or not _are_classes(labels, count, task):
            continue
        known = task.labelled(labels).tolist()
        values = zip(labels.tolist(), known, strict=True)
        seen.labels += [label if there else None for label, there in values]
    return seen


def _are_classes(labels: Tensor, count: int, task: Task) -> bool:
    classes = task.has_names and task.fixed_classes and not task.per_token
    return classes and labels.shape == (count,) and not labels.is_floating_point()


def _repeated(train: Seen, validation: Seen) -> Iterator[Finding]:
    name, about = "rows.in_both", "validation rows"
    if not (train.comparable and validation.comparable and validation.rows):
        yield Finding(name, about, "cannot be compared with the training rows", Level.UNKNOWN)
        return
    known = Counter(train.ids)
    both = sum(one in known for one in validation.ids)
    share = both / validation.rows
    found = f"{both:,} of {validation.rows:,} are training rows too ({share:.0%})"
    found += "" if train.whole else f", of {train.rows:,} that were read"
    if share <= IN_BOTH:
        yield Finding(name, about, found)
    else:
        level = Level.WRONG if share >= NEARLY_ALL else Level.WARNING
        do = "Such rows do not show what was learnt: name others (data.validation=FILE)."
        yield Finding(name, about, found, level, do)
    repeated = train.rows - len(known)
    share = repeated / max(train.rows, 1)
    found = f"{repeated:,} of {train.rows:,} repeat another one ({share:.0%})"
    level = Level.WARNING if share > TWICE else Level.RIGHT
    do = "Is data.text (or data.image) the right column?" if level is Level.WARNING else ""
    yield Finding("rows.repeated", "training rows", found, level, do)
    yield from _contradictions(train)


def _contradictions(train: Seen) -> Iterator[Finding]:
    if len(train.labels) != len(train.ids):
        return
    classes: dict[bytes, set[int]] = {}
    for one, label in zip(train.ids, train.labels, strict=True):
        if label is not None:
            classes.setdefault(one, set()).add(label)
    unlike = sum(len(classes.get(one, ())) > 1 for one in train.ids)
    share = unlike / max(train.rows, 1)
    if share > UNLIKE:
        yield Finding(
            "rows.contradict",
            "training rows",
            f"{unlike:,} of {train.rows:,} have another label than the same row elsewhere "
            f"({share:.0%})",
            Level.WARNING,
            "Is data.label the right column, and are rows not cut so short that they look alike "
            "(data.max_length)?",
        )


def _classes(train: Seen, validation: Seen, facts: DataFacts) -> Iterator[Finding]:
    counts = train.classes
    labelled = counts.total()
    if not labelled:
        return
    names = facts.label_names or []

    def called(label: int) -> str:
        return str(names[label]) if label < len(names) else str(label)

    label, most = counts.most_common(1)[0]
    share = most / labelled
    found = f"{len(counts)} of {facts.num_labels or len(counts)} occur; the most frequent, "
    found += f"{called(label)}, has {share:.0%} of {labelled:,} labelled training rows"
    if len(counts) == 1:
        do = "There is nothing to tell apart: is data.label the right column?"
        yield Finding("labels.constant", "classes", found, Level.WRONG, do)
        return
    level = Level.WARNING if share > ONE_CLASS else Level.RIGHT
    do = "Accuracy says little here: measure metrics=[f1,agreement]." if share > ONE_CLASS else ""
    yield Finding("labels.frequent", "classes", found, level, do)
    every = range(facts.num_labels or 0)
    missing = [called(n) for n in every if n not in counts] if train.whole else []
    if missing:
        yield Finding(
            "labels.not_in_training",
            "classes",
            f"no training row has {_some(missing)}",
            Level.WARNING,
            "Such a class is learnt of the teacher alone: add rows, or leave it out of "
            "data.label_names.",
        )
    there, rows = validation.classes, validation.classes.total()
    expected = {n: count / labelled * rows for n, count in counts.items() if n not in there}
    missing = [called(n) for n, rows in sorted(expected.items()) if rows >= EXPECTED]
    if missing and validation.whole:
        yield Finding(
            "labels.not_in_validation",
            "classes",
            f"no validation row has {_some(missing)}, which training rows have",
            Level.WARNING,
            "Nothing is measured of such a class: mix the rows before they are cut into files.",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
