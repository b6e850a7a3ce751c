"""How far is the student from the teacher, and from the labels?

Each criterion is a function that gives one value per sample, and a module of the same name in
capitals that takes the mean over those that count. Arguments come in the order student, teacher.
"""

from ._check import masked_mean
from .ab import AB, ab
from .alm import ALM, alm
from .attention_kl import attention_kl, AttentionKL
from .attention_mse import attention_mse, AttentionMSE
from .attention_scores import attention_scores, AttentionScores
from .attention_transfer import attention_transfer, AttentionTransfer
from .cka import CKA, cka
from .class_subset import class_subset, ClassSubset
from .correlation_congruence import correlation_congruence, CorrelationCongruence
from .cosine_hidden import cosine_hidden, CosineHidden
from .crd import CRD, crd
from .criterion import Criterion
from .cwd import CWD, cwd
from .dist import DIST, dist
from .dkd import DKD, dkd
from .fsp import FSP, fsp
from .ft import FT, ft
from .fused_linear_cross_entropy import fused_linear_cross_entropy, FusedLinearCrossEntropy
from .fused_linear_divergence import fused_linear_divergence, FusedLinearDivergence
from .fused_linear_sampled import fused_linear_sampled, FusedLinearSampled
from .fused_linear_top_k import fused_linear_top_k, FusedLinearTopK
from .hard_label import hard_label, HardLabel
from .hint import Hint, hint
from .ickd import ICKD, ickd
from .jsd import JSD, jsd
from .kdsvd import KDSVD, kdsvd
from .knowledge_distillation import KnowledgeDistillation
from .listwise_kl import listwise_kl, ListwiseKL
from .logit_mse import logit_mse, LogitMSE
from .logit_standardization import logit_standardization, LogitStandardization
from .margin_mse import margin_mse, MarginMSE
from .mgd import MGD, mgd
from .mini_lm_relation import mini_lm_relation, MiniLMRelation
from .mlkd import MLKD, mlkd
from .nkd import NKD, nkd
from .nst import NST, nst
from .of_candidates import of_candidates, OfCandidates
from .ofa import OFA, ofa
from .ofd import OFD, ofd, ofd_margin
from .one_versus_all import one_versus_all, OneVersusAll
from .pair_score import pair_score, PairScore
from .patient_hidden import patient_hidden, PatientHidden
from .pearson_feature import pearson_feature, PearsonFeature
from .pkt import PKT, pkt
from .queue_similarity import queue_similarity, QueueSimilarity
from .reverse_kl import reverse_kl, ReverseKL
from .review_kd import review_kd, ReviewKD
from .rkd import RKD, rkd
from .sample_weighted import sample_weighted, SampleWeighted
from .similarity_preserving import similarity_preserving, SimilarityPreserving
from .skew_kl import skew_kl, SkewKL
from .skew_reverse_kl import skew_reverse_kl, SkewReverseKL
from .soft_cross_entropy import soft_cross_entropy, SoftCrossEntropy
from .soft_target import soft_target, SoftTarget
from .srd import SRD, srd
from .taid import TAID, taid
from .tf_kd import tf_kd, TfKD
from .total_variation import total_variation, TotalVariation
from .uld import ULD, uld
from .vid import VID, vid
from .wsld import WSLD, wsld

__all__ = [
    "AB",
    "ALM",
    "CKA",
    "CRD",
    "CWD",
    "DIST",
    "DKD",
    "FSP",
    "FT",
    "ICKD",
    "JSD",
    "KDSVD",
    "MGD",
    "MLKD",
    "NKD",
    "NST",
    "OFA",
    "OFD",
    "PKT",
    "RKD",
    "SRD",
    "TAID",
    "ULD",
    "VID",
    "WSLD",
    "AttentionKL",
    "AttentionMSE",
    "AttentionScores",
    "AttentionTransfer",
    "ClassSubset",
    "CorrelationCongruence",
    "CosineHidden",
    "Criterion",
    "FusedLinearCrossEntropy",
    "FusedLinearDivergence",
    "FusedLinearSampled",
    "FusedLinearTopK",
    "HardLabel",
    "Hint",
    "KnowledgeDistillation",
    "ListwiseKL",
    "LogitMSE",
    "LogitStandardization",
    "MarginMSE",
    "MiniLMRelation",
    "OfCandidates",
    "OneVersusAll",
    "PairScore",
    "PatientHidden",
    "PearsonFeature",
    "QueueSimilarity",
    "ReverseKL",
    "ReviewKD",
    "SampleWeighted",
    "SimilarityPreserving",
    "SkewKL",
    "SkewReverseKL",
    "SoftCrossEntropy",
    "SoftTarget",
    "TfKD",
    "TotalVariation",
    "ab",
    "alm",
    "attention_kl",
    "attention_mse",
    "attention_scores",
    "attention_transfer",
    "cka",
    "class_subset",
    "correlation_congruence",
    "cosine_hidden",
    "crd",
    "cwd",
    "dist",
    "dkd",
    "fsp",
    "ft",
    "fused_linear_cross_entropy",
    "fused_linear_divergence",
    "fused_linear_sampled",
    "fused_linear_top_k",
    "hard_label",
    "hint",
    "ickd",
    "jsd",
    "kdsvd",
    "listwise_kl",
    "logit_mse",
    "logit_standardization",
    "margin_mse",
    "masked_mean",
    "mgd",
    "mini_lm_relation",
    "mlkd",
    "nkd",
    "nst",
    "of_candidates",
    "ofa",
    "ofd",
    "ofd_margin",
    "one_versus_all",
    "pair_score",
    "patient_hidden",
    "pearson_feature",
    "pkt",
    "queue_similarity",
    "reverse_kl",
    "review_kd",
    "rkd",
    "sample_weighted",
    "similarity_preserving",
    "skew_kl",
    "skew_reverse_kl",
    "soft_cross_entropy",
    "soft_target",
    "srd",
    "taid",
    "tf_kd",
    "total_variation",
    "uld",
    "vid",
    "wsld",
]
