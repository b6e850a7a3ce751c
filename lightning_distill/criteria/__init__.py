"""How far is the student from the teacher, and from the labels?

Each criterion is a function that gives one value per sample, and a module of the same name in
capitals that takes the mean over those that count. Arguments come in the order student, teacher.
"""

from ._check import masked_mean
from .correlation_congruence import correlation_congruence, CorrelationCongruence
from .dist import DIST, dist
from .dkd import DKD, dkd
from .hard_label import hard_label, HardLabel
from .hint import Hint, hint
from .jsd import JSD, jsd
from .knowledge_distillation import KnowledgeDistillation
from .listwise_kl import listwise_kl, ListwiseKL
from .logit_mse import logit_mse, LogitMSE
from .logit_standardization import logit_standardization, LogitStandardization
from .margin_mse import margin_mse, MarginMSE
from .mlkd import MLKD, mlkd
from .nkd import NKD, nkd
from .ofa import OFA, ofa
from .pkt import PKT, pkt
from .reverse_kl import reverse_kl, ReverseKL
from .rkd import RKD, rkd
from .similarity_preserving import similarity_preserving, SimilarityPreserving
from .skew_kl import skew_kl, SkewKL
from .skew_reverse_kl import skew_reverse_kl, SkewReverseKL
from .soft_cross_entropy import soft_cross_entropy, SoftCrossEntropy
from .soft_target import soft_target, SoftTarget
from .taid import TAID, taid
from .tf_kd import tf_kd, TfKD
from .total_variation import total_variation, TotalVariation
from .wsld import WSLD, wsld

__all__ = [
    "DIST",
    "DKD",
    "JSD",
    "MLKD",
    "NKD",
    "OFA",
    "PKT",
    "RKD",
    "TAID",
    "WSLD",
    "CorrelationCongruence",
    "HardLabel",
    "Hint",
    "KnowledgeDistillation",
    "ListwiseKL",
    "LogitMSE",
    "LogitStandardization",
    "MarginMSE",
    "ReverseKL",
    "SimilarityPreserving",
    "SkewKL",
    "SkewReverseKL",
    "SoftCrossEntropy",
    "SoftTarget",
    "TfKD",
    "TotalVariation",
    "correlation_congruence",
    "dist",
    "dkd",
    "hard_label",
    "hint",
    "jsd",
    "listwise_kl",
    "logit_mse",
    "logit_standardization",
    "margin_mse",
    "masked_mean",
    "mlkd",
    "nkd",
    "ofa",
    "pkt",
    "reverse_kl",
    "rkd",
    "similarity_preserving",
    "skew_kl",
    "skew_reverse_kl",
    "soft_cross_entropy",
    "soft_target",
    "taid",
    "tf_kd",
    "total_variation",
    "wsld",
]
