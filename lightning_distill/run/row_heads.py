"""Heads for labels of whole rows: who gets a fresh one, and whose labels must be the same."""

import logging
from typing import Any

from omegaconf import DictConfig, open_dict
from torch import nn

from ..data.data import DataFacts
from ..models.peft_parts import is_adapted
from ..models.row_head import drop_row_head, fresh_row_head, give_row_head, row_head_of
from ..teachers import Teacher
from .objective import learns_row_head

log = logging.getLogger("lightning_distill")


def give_rows_a_head(cfg: DictConfig, data: Any, model: nn.Module) -> None:
    """Give a model that will be trained a head for labels of whole rows, where the data have some.

    One that it has for these labels stays; for others, or in another order, it gets a fresh one.
    Where nothing of the run trains one that is there, it is dropped: what it reads will change.

    Raises:
        ValueError: if nobody says which labels there are.
    """
    facts, there = DataFacts(data), row_head_of(model)
    if not facts.has_row_labels:
        if there is not None and not learns_row_head(cfg):
            drop_row_head(model)
            log.info("the head for labels of whole rows is left out: no data.row_label is set")
        return
    names = facts.row_label_names
    if names is None:
        raise ValueError(
            "No row has a label as a whole (data.row_label), so these labels are unknown: name "
            "them, as in data.row_label_names=[first,second]."
        )
    if there is None or there.names != names:
        if there is not None:
            log.info("a fresh head for %s: it had one for %s", _shown(names), _shown(there.names))
        give_row_head(model, fresh_row_head(model, names, int(cfg.seed)))
    elif is_adapted(model):
        # Beside adapters a head is trained whole, and peft freezes all that it does not know.
        there.requires_grad_(True)


def check_row_labels(cfg: DictConfig, data: Any, teacher: nn.Module) -> None:
    """See that the teacher's labels of whole rows are the data's.

    Data without any such label, though a column is named, get the teacher's.

    Raises:
        ValueError: if they are others, or stand in another order.
    """
    facts, theirs = DataFacts(data), Teacher.of(teacher).row_label_names
    if not facts.has_row_labels or theirs is None:
        return
    if facts.row_label_names is None:
        data.row_label_names = list(theirs)
        with open_dict(cfg):
            cfg.num_row_labels = len(theirs)
    _check_same(facts.row_label_names, theirs, "teacher")


def check_row_head(data: Any, model: nn.Module) -> None:
    """Refuse to measure a model on labels of whole rows for which it has no head.

    Raises:
        ValueError: saying how to train one, or which labels differ.
    """
    facts, head = DataFacts(data), row_head_of(model)
    if not facts.has_row_labels:
        return
    if head is None:
        raise ValueError(
            "The data have labels of whole rows (data.row_label), and the model has no head for "
            "them. Train one with lightning-distill job=finetune on such data, or measure without "
            "them: data.row_label=null."
        )
    _check_same(facts.row_label_names, head.names, "model")


def _check_same(names: list[str] | None, theirs: list[str], role: str) -> None:
    if names is None or names == list(theirs):
        return
    if sorted(names) == sorted(theirs):
        raise ValueError(
            f"The labels of whole rows stand in another order in the {role} ({_shown(theirs)}) "
            f"than in the data ({_shown(names)}): set data.row_label_names=[{','.join(theirs)}]."
        )
    raise ValueError(
        f"The labels of whole rows of the {role} ({_shown(theirs)}) are not those of the data "
        f"({_shown(names)}). List all of the {role}'s in data.row_label_names, or train the "
        f"{role} on these data: lightning-distill job=finetune."
    )


def _shown(names: list[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
