"""Which training rows of a run have labels."""

from typing import Any

from ..data.data import DataFacts
from ..objective.objective import Objective


def labelled_rows(data: Any) -> int | None:
    """How many training rows keep their label; `None` if the data does not say."""
    return DataFacts(data).labelled_rows


def on_labels(data: Any) -> Any:
    """The data without its unlabelled training rows, where it can leave them out."""
    return DataFacts(data).replaced(drop_unlabelled=True)


def check_labels(data: Any, objective: Objective) -> None:
    """Refuse to train on labels alone where there are none.

    Raises:
        ValueError: naming the terms, whose losses would all be zero.
    """
    if labelled_rows(data) != 0 or objective.sources("teacher"):
        return
    names = [str(source) for source in objective.sources("batch")]
    if "batch.labels" in names or "batch.label" in names:
        raise ValueError(
            f"No training row has a label, and {', '.join(objective.terms)} learns from labels "
            "alone. Is data.label the right column? Without labels take a teacher and a term that "
            "reads it, as in criteria=[soft_target]."
        )
