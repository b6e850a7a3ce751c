"""Metrics that torchmetrics does not have, or not for large vocabularies, and what they are given.

All are [`torchmetrics.Metric`][] objects that sum over batches and ranks before they divide: a
batch of many tokens counts as many, and every rank computes the same.
"""

from .agreement import Agreement
from .answer_exact_match import AnswerExactMatch
from .answer_f1 import AnswerF1
from .bits_per_byte import BitsPerByte
from .entity_f1 import EntityF1
from .forward_kl import ForwardKL
from .from_sources import FromSources
from .kept_states import give, KeptStates
from .mrr import MRR
from .ndcg import NDCG
from .perplexity import Perplexity
from .recall_at_k import RecallAtK
from .reverse_kl import ReverseKL
from .samples import check_pairs, check_vectors, Samples, teacher_batch
from .similarity_agreement import SimilarityAgreement
from .texts import Bleu, ExactMatch, feed_texts, Rouge, WordErrorRate, WrittenTexts

__all__ = [
    "MRR",
    "NDCG",
    "Agreement",
    "AnswerExactMatch",
    "AnswerF1",
    "BitsPerByte",
    "Bleu",
    "EntityF1",
    "ExactMatch",
    "ForwardKL",
    "FromSources",
    "KeptStates",
    "Perplexity",
    "RecallAtK",
    "ReverseKL",
    "Rouge",
    "Samples",
    "SimilarityAgreement",
    "WordErrorRate",
    "WrittenTexts",
    "check_pairs",
    "check_vectors",
    "feed_texts",
    "give",
    "teacher_batch",
]
