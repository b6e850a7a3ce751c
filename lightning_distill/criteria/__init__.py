"""How far is the student from the teacher, and from the labels?

Each criterion is a function that gives one value per sample, and a module of the same name in
capitals that takes the mean over those that count. Arguments come in the order student, teacher.
"""

from ._check import masked_mean
from .hard_label import hard_label, HardLabel
from .hint import Hint, hint
from .knowledge_distillation import KnowledgeDistillation
from .logit_mse import logit_mse, LogitMSE
from .soft_cross_entropy import soft_cross_entropy, SoftCrossEntropy
from .soft_target import soft_target, SoftTarget

__all__ = [
    "HardLabel",
    "Hint",
    "KnowledgeDistillation",
    "LogitMSE",
    "SoftCrossEntropy",
    "SoftTarget",
    "hard_label",
    "hint",
    "logit_mse",
    "masked_mean",
    "soft_cross_entropy",
    "soft_target",
]
