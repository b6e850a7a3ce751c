"""The key `vocabulary` of a student that is made of the teacher: the tokens that it knows."""

import copy
import logging
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ..data.count_tokens import count_tokens
from ..data.data import DataFacts
from ..students.vocabulary_cut import check_tokenizer, check_vocabulary, cut_vocabulary
from ..tasks import task_of

log = logging.getLogger("lightning_distill")

KEY = "vocabulary"
# A class of a user's may have a key of this name that means something else.
MADE_OF_TEACHER = (
    "lightning_distill.students.from_teacher",
    "lightning_distill.run.pruned_student",
)
WITHOUT = "Leave student.vocabulary=null."


def asks_for_fewer_tokens(cfg: DictConfig) -> bool:
    """Whether the student shall know fewer tokens than the teacher.

    Raises:
        ValueError: for what is no size of a vocabulary.
    """
    student = cfg.get("student")
    if not _is_made_of_teacher(student) or student.get(KEY) is None:
        return False
    check_vocabulary(student.get(KEY))
    return True


def without_vocabulary(node: Any, where: str = "student") -> Any:
    """What makes a student, which is given the tokens that were chosen in the place of the key.

    Args:
        node: its configuration.
        where: it stands.

    Raises:
        ValueError: for fewer tokens of a student of which another one is made.
    """
    if not _is_made_of_teacher(node) or KEY not in node:
        return node
    plain = copy.deepcopy(node)
    with open_dict(plain):
        asked = plain.pop(KEY)
    if asked is not None and where != "student":
        raise ValueError(
            f"{where}.{KEY} is {asked}, and the vocabulary is cut of student=pruned and "
            "student=from_teacher only, and not within another student. Make the smaller student "
            f"first and name its folder, as in student.path=DIR, or leave {where}.{KEY}=null."
        )
    return plain


def _is_made_of_teacher(node: Any) -> bool:
    return OmegaConf.is_dict(node) and node.get("_target_") in MADE_OF_TEACHER


def with_fewer_tokens(
    cfg: DictConfig, whole: Any, again: Callable[..., Any], teacher: str | None, taught: bool
) -> Any:
    """The data as a student reads them that knows fewer tokens, beside the teacher's.

    Args:
        cfg: the run's configuration.
        whole: the data module, set up with the teacher's tokenizer.
        again: makes and sets up the same data with other options.
        teacher: where the teacher's tokenizer is.
        taught: whether the student learns of a teacher, which reads its own tokens.

    Raises:
        ValueError: for data without texts, a teacher whose tokenizer is not known, and models that
            must read the same tokens.
    """
    asked, facts = cfg.student.vocabulary, DataFacts(whole)
    kind = type(whole).__name__
    if facts.tokenizer is None or "tokenizer" not in cfg.data:
        raise ValueError(
            f"student.vocabulary={asked} needs data of texts with a tokenizer, and {kind} has "
            f"none. {WITHOUT}"
        )
    if teacher is None:
        raise ValueError(
            f"student.vocabulary={asked} cuts the tokenizer of a teacher that is loaded, as in "
            "teacher=pretrained teacher.path=DIR. Of a teacher that is trained here the tokenizer "
            "is made of the same texts: set data.vocab_size."
        )
    if facts.teacher_tokenizer is not None:
        raise ValueError(
            f"student.vocabulary={asked} cuts the teacher's tokenizer, and data.tokenizer names "
            "another one: leave data.tokenizer=null and data.teacher_tokenizer=null."
        )
    if taught and facts.one_tokenizer:
        raise ValueError(
            f"student.vocabulary={asked} makes a student that splits texts otherwise than its "
            f"teacher, and data.task={task_of(whole).name} compares both token by token. Train the "
            f"smaller student on labels (job=finetune), or leave student.vocabulary=null."
        )
    check_tokenizer(facts.tokenizer)
    counts = count_tokens(whole, max(facts.tokenizer.get_vocab().values()) + 1)
    cut = cut_vocabulary(facts.tokenizer, counts, asked)
    share = counts[cut.ids].sum() / counts.sum()
    log.info(
        "Vocabulary: %s of the teacher's %s tokens, which are %.4g%% of those in the texts",
        f"{len(cut.ids):,}",
        f"{len(cut.whole):,}",
        100 * share,
    )
    # Of what is learnt from labels alone the teacher is only compared with, where that can be.
    both = taught or not (facts.one_tokenizer or task_of(whole).predicts_ids)
    own = {"teacher_tokenizer": cut.whole} if both else {}
    data = again(tokenizer=cut.tokenizer, **own)
    data.vocabulary_cut = cut
    return data
