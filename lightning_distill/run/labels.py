"""Which rows of a run have labels, and whose classes are meant where none has."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, open_dict

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


def check_measurable(data: Any, job: str) -> None:
    """Refuse data without any label to a job that has nothing but labels to measure by.

    Raises:
        ValueError: saying what such data are good for.
    """
    if DataFacts(data).unlabelled:
        raise ValueError(
            f"No row of the data has a label, and {job} can measure nothing without. Is data.label "
            "the right column? On rows without labels a student can learn of a teacher: "
            "job=distill teacher=pretrained teacher.path=DIR."
        )


def take_classes(
    cfg: DictConfig, data: Any, names: Mapping[int, str] | Sequence[str] | None
) -> None:
    """Give data without any label the classes of their teacher, where nobody has named some.

    Args:
        cfg: the run's configuration; its `num_labels` is set.
        data: the data module.
        names: of the teacher's classes.

    Raises:
        ValueError: if the teacher does not name its classes.
    """
    facts = DataFacts(data)
    if not facts.unlabelled or facts.num_labels is not None:
        return
    if names is None:
        raise ValueError(
            "No row of the data has a label, and the teacher does not say how many classes there "
            "are: set num_labels=N."
        )
    numbered = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
    data.label_names = [numbered[i] for i in sorted(numbered)]
    data.num_labels = len(numbered)
    with open_dict(cfg):
        cfg.num_labels = len(numbered)
