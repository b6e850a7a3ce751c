"""Language models whose token ids may not mean the same, found out before anything is trained."""

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..data.data import DataFacts
from ..data.load_tokenizer import load_tokenizer
from ..metrics.traits import needs_teacher
from ..models.vocabulary import compare_vocabularies, shared_vocabulary
from ..objective.objective import Objective
from ..objective.term import Term
from ..tasks import Task, task_named, task_of
from .targets import find_target

log = logging.getLogger("lightning_distill")


def share_ids(cfg: DictConfig, student: str, teacher: str) -> bool:
    """Whether two language models may read the same ids; says how many they share, and notes it.

    Args:
        cfg: the run's configuration; criteria with a `shared_vocab` that is null get the number.
        student: where the student's tokenizer is.
        teacher: where the teacher's is.
    """
    target = cfg.data.get("_target_")
    named = None if target is None else getattr(find_target(target), "task", None)
    # A class of a user's own may find out its task when it has read the data.
    if not isinstance(named, str | Task) or not task_named(named).predicts_ids:
        return False
    found = compare_vocabularies(load_tokenizer(student), load_tokenizer(teacher))
    if not found.comparable:
        return False
    (log.warning if found.steps else log.info)("Tokenizers: %s", found)
    if found.first_difference is not None:
        for node in (cfg.get("criteria") or {}).values():
            criterion = node.get("criterion") if OmegaConf.is_dict(node) else None
            if criterion is not None and criterion.get("shared_vocab", 0) is None:
                criterion.shared_vocab = found.shared
    return True


def check_vocabularies(data: Any, objective: Objective) -> None:
    """Refuse to compare logits by ids that mean other tokens to the teacher.

    Raises:
        ValueError: with the first id that differs, and what to do.
    """
    own = DataFacts(data).teacher_tokenizer
    if own is None or not task_of(data).predicts_ids:
        return
    for name, term in objective.terms.items():
        if not isinstance(term, Term) or not _compares_ids(term):
            continue
        try:
            shared_vocabulary(data.tokenizer, own)
        except ValueError as error:
            raise ValueError(f"Term {name!r} compares logits by their ids. {error}") from error
        raise ValueError(
            f"Term {name!r} compares positions of the same tokens, and data.teacher_tokenizer "
            "makes the teacher read tokens of its own. Its ids mean the same as the student's: "
            "leave data.teacher_tokenizer=null."
        )


def _compares_ids(term: Term) -> bool:
    if term.criterion.any_classes:
        return False
    return any(
        source.role == "teacher" and (source.kind in ("head", "sparse") or source.name == "logits")
        for source in term.sources()
    )


def without_common_tokens(cfg: DictConfig, data: Any) -> None:
    """Switch off metrics that compare with the teacher token by token, where it has other ones."""
    if not task_of(data).predicts_ids or DataFacts(data).teacher_tokenizer is None:
        return
    dropped = []
    for name, node in (cfg.get("metrics") or {}).items():
        target = node.get("_target_") if OmegaConf.is_dict(node) else None
        if target is not None and needs_teacher(find_target(target)):
            dropped.append(str(name))
    for name in dropped:
        cfg.metrics[name] = None
    if dropped:
        log.info(
            "Metrics: %s left out, for student and teacher have different tokens",
            ", ".join(dropped),
        )
