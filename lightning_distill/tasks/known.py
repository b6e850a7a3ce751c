"""The tasks that there are, by name and by what a model or a batch shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn, Tensor

from ..criteria import HardLabel
from ..models.batch import entry, labels_of
from ..models.configuration import configured, is_encoder_decoder
from ..models.head import linear_head
from ..models.submodules import innermost
from ..objective.term import Term
from .classification import Classification
from .embedding import Embedding
from .labels import label_or_none, plain
from .language_modelling import LanguageModelling
from .masked_language_modelling import MaskedLanguageModelling
from .multi_label import MultiLabel
from .question_answering import QuestionAnswering
from .ranking import Ranking
from .regression import Regression
from .segmentation import Segmentation
from .sequence_to_sequence import SequenceToSequence
from .task import Task
from .token_classification import TokenClassification

TASKS: tuple[Task, ...] = (
    Classification(),
    MultiLabel(),
    Regression(),
    LanguageModelling(),
    MaskedLanguageModelling(),
    TokenClassification(),
    QuestionAnswering(),
    SequenceToSequence(),
    Ranking(),
    Segmentation(),
    # Behind those whose models end on more than `Model`.
    Embedding(),
)


# Endings of the names of model classes whose classes are the ids of the vocabulary.
OF_IDS = (
    *LanguageModelling.heads,
    *MaskedLanguageModelling.heads,
    *SequenceToSequence.heads,
)


def task_named(task: Any) -> Task:
    """The task of this name; a task is returned as it is, and `None` is a classification.

    Raises:
        ValueError: for a name that no task has.
    """
    if isinstance(task, Task):
        return task
    if task is None:
        return TASKS[0]
    for known in TASKS:
        if known.name == task:
            return known
    raise ValueError(
        f"`task` must be one of {', '.join(t.name for t in TASKS)}, or a class of your own that is "
        f"named by _target_ and extends lightning_distill.tasks.Task, got {task!r}."
    )


def task_of(data: Any) -> Task:
    """The task of a data module: its `task`; a classification where it says none."""
    return task_named(getattr(data, "task", None))


def task_of_model(model: Any) -> Task:
    """The task that the class of a model serves, and what its configuration says of its labels."""
    return task_of_architecture(type(innermost(model)).__name__, configured(model, "problem_type"))


def task_of_architecture(architecture: str, problem_type: str | None = None) -> Task:
    """The task that a class of transformers serves by its name; a classification if it says none.

    Args:
        architecture: the name of the class.
        problem_type: as a configuration has it.
    """
    serving = [task for task in TASKS if task.serves(architecture)] or [TASKS[0]]
    exact = [task for task in serving if problem_type and task.problem_type == problem_type]
    return (exact or serving)[0]


def task_of_labels(labels: Sequence[Any]) -> Task:
    """The task that labels of rows show, as a file or a data set holds them.

    Args:
        labels: a list for each row is several labels; numbers, of which one has a fraction, are a
            regression; all else, also whole numbers, is classes.
    """
    values = [label_or_none(value) for value in labels]
    known = [value for value in values if value is not None]
    if any(isinstance(value, list | tuple) for value in known):
        return MultiLabel()
    numbers = [plain(value) for value in known]
    if all(isinstance(n, int | float) for n in numbers) and any(
        isinstance(n, float) for n in numbers
    ):
        return Regression()
    return Classification()


def owner_of(metric: Any) -> Task | None:
    """The task that a class of metrics is meant for, if it is meant for one."""
    return next((task for task in TASKS if task.measures(metric)), None)


def label_kind_of(terms: Mapping[str, Term]) -> str | None:
    """The kind of labels that the terms of an objective learn from, if one says so."""
    criteria = [term.criterion for term in terms.values()]
    return next((c.kind for c in criteria if isinstance(c, HardLabel)), None)


def infer_task(
    model: nn.Module | None,
    batch: Any,
    predicted: Tensor | None = None,
    label_kind: str | None = None,
) -> Task | None:
    """The task where nobody names it.

    0. That of a model with two outputs for the ends of an answer.
    1. Labels of which there is one for each token, or predictions `(rows, tokens, classes)`: a
       language model if the classes are the ids of the model's vocabulary, an encoder-decoder if
       that model is one, else classes of tokens.
    2. Labels that are floating point numbers, or as many as predictions: what the label loss of
       the objective, or `problem_type` in the model's configuration, says; else independent labels
       if all of several are 0 or 1, and a regression if not.
    3. One class of many for each row.

    Args:
        model: the student, if it is known.
        batch: as models are given it.
        predicted: the student's logits, once they are known.
        label_kind: of a term of labels, as [`HardLabel`][lightning_distill.criteria.HardLabel] has
            it.

    Returns:
        `None` if the batch alone does not say, and nothing is predicted yet.
    """
    labels = labels_of(batch)
    if model is not None and QuestionAnswering().serves(type(innermost(model)).__name__):
        return QuestionAnswering()
    if _is_per_token(batch, labels, predicted):
        return _of_ids(model) if _predicts_ids(model, predicted) else TokenClassification()
    if predicted is None:
        return _of_ids(model) if labels is None and _predicts_ids(model, None) else None
    several = isinstance(labels, Tensor) and labels.dim() > 1 and labels.shape == predicted.shape
    if not isinstance(labels, Tensor) or not (several or labels.is_floating_point()):
        return Classification()
    problem = configured(model, "problem_type")
    for task in TASKS:
        if label_kind is not None and task.label_kind == label_kind:
            return task
        if label_kind is None and problem is not None and task.problem_type == problem:
            return task
    known = labels[MultiLabel().labelled(labels)] if several else None
    are_binary = known is not None and bool(((known == 0) | (known == 1)).all())
    return MultiLabel() if are_binary else Regression()


def _is_per_token(batch: Any, labels: Any, predicted: Tensor | None) -> bool:
    ids = entry(batch, "input_ids")
    if isinstance(labels, Tensor):
        if labels.is_floating_point() or labels.dim() < 2:
            return False
        if predicted is not None:
            return predicted.dim() > 2 and labels.shape == predicted.shape[:-1]
        # Several labels of a row may be as many as it has tokens, but then they are no classes.
        return isinstance(ids, Tensor) and labels.shape == ids.shape
    if predicted is None or predicted.dim() != 3:
        return False
    mask = entry(batch, "attention_mask")
    tokens = next((t.shape for t in (mask, ids) if isinstance(t, Tensor) and t.dim() == 2), None)
    return tokens is not None and tokens == predicted.shape[:-1]


def _of_ids(model: nn.Module | None) -> Task:
    """Of models whose classes are ids: which of them a model says."""
    if is_encoder_decoder(model):
        return SequenceToSequence()
    named = task_of_architecture(type(innermost(model)).__name__)
    return named if named.predicts_ids else LanguageModelling()


def _predicts_ids(model: nn.Module | None, predicted: Tensor | None) -> bool:
    if model is None:
        # Metrics are fed alike.
        return False
    if linear_head(model) is not None or type(innermost(model)).__name__.endswith(OF_IDS):
        return True
    # A head that is as wide as the embedding has rows predicts its ids.
    size = configured(model, "vocab_size")
    return predicted is not None and isinstance(size, int) and predicted.shape[-1] >= size
