"""What labels mean: tasks, which models, metrics, masks, data and jobs ask."""

from .answers import References
from .classification import Classification
from .embedding import Embedding
from .generated_texts import GeneratedTexts
from .known import (
    infer_task,
    label_kind_of,
    owner_of,
    task_named,
    task_of,
    task_of_architecture,
    task_of_labels,
    task_of_model,
    TASKS,
)
from .language_modelling import LanguageModelling, PerToken
from .masked_language_modelling import MaskedLanguageModelling
from .masks import knows_what_counts, mask_terms
from .multi_label import MultiLabel
from .question_answering import QuestionAnswering
from .ranking import Ranking
from .regression import Regression
from .segmentation import Segmentation
from .sequence_to_sequence import SequenceToSequence
from .softmax import check_softmax
from .task import Task
from .token_classification import TokenClassification

__all__ = [
    "TASKS",
    "Classification",
    "Embedding",
    "GeneratedTexts",
    "LanguageModelling",
    "MaskedLanguageModelling",
    "MultiLabel",
    "PerToken",
    "QuestionAnswering",
    "Ranking",
    "References",
    "Regression",
    "Segmentation",
    "SequenceToSequence",
    "Task",
    "TokenClassification",
    "check_softmax",
    "infer_task",
    "knows_what_counts",
    "label_kind_of",
    "mask_terms",
    "owner_of",
    "task_named",
    "task_of",
    "task_of_architecture",
    "task_of_labels",
    "task_of_model",
]
