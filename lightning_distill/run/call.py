"""Objects from a configuration, given what else is known by name."""

import inspect
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..data.data import DataFacts
from ..models.configuration import set_pad_token
from ..tasks import task_named
from .targets import instantiate
from .task import auto_class_of


def group(cfg: DictConfig, name: str) -> Any:
    """The members of a list of choices; an empty list leaves no such key behind."""
    return OmegaConf.select(cfg, name) or {}


def known(data: Any, path: Any = None, **more: Any) -> dict[str, Any]:
    """What a model's constructor may ask for by name.

    Args:
        data: the data module.
        path: of a saved model that is to be loaded, whose class may choose the `auto_class`.
        more: further values.
    """
    facts = DataFacts(data)
    task, tokenizer = facts.task, facts.tokenizer
    known = {
        "num_labels": facts.num_labels,
        "label_names": facts.label_names,
        "task": None if task is None else task_named(task),
        "vocab_size": None if tokenizer is None else len(tokenizer),
        "pad_token_id": pad_token_id(data),
        "eos_token_id": None if tokenizer is None else tokenizer.eos_token_id,
        "auto_class": auto_class_of(task, path, facts.architecture),
        "image_size": facts.image_size,
        "data": data,
        **more,
    }
    return {name: value for name, value in known.items() if value is not None}


def pad_token_id(data: Any, role: str = "student") -> int | None:
    """What the rows of a model are padded with: its tokenizer decides, and the model is told."""
    facts = DataFacts(data)
    own, cut = None, facts.vocabulary_cut
    if role == "teacher":
        own = cut.whole if cut is not None else facts.teacher_tokenizer
    tokenizer = facts.tokenizer if own is None else own
    return None if tokenizer is None else tokenizer.pad_token_id


def call(node: Any, known: Mapping[str, Any], role: str = "model") -> Any:
    """Instantiate `node`, giving it those of the known values that it takes and does not set.

    Raises:
        ValueError: naming the role, if `node` names no class or the class needs more.
    """
    if not OmegaConf.is_config(node) or "_target_" not in node:
        raise ValueError(f"`{role}` must name a class or function by `_target_`, got {node!r}.")
    target = instantiate(node, _partial_=True, _convert_="object")
    wanted = inspect.signature(target.func).parameters
    given = {
        name: value
        for name, value in known.items()
        if name in wanted and target.keywords.get(name) is None
    }
    missing = [
        p.name
        for p in wanted.values()
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in {*given, *target.keywords}
    ]
    if missing == ["teacher"]:
        raise ValueError(
            f"`{role}` ({node['_target_']}) needs a teacher, and there is none; choose one, as in "
            "teacher=pretrained teacher.path=DIR."
        )
    if missing:
        raise ValueError(
            f"`{role}` ({node['_target_']}) needs {', '.join(missing)}; set it, as in "
            f"+{role}.{missing[0]}=VALUE."
        )
    made = target(**given)
    if isinstance(made, nn.Module):
        # Whatever makes a model of it: the tokenizer alone decides what rows are padded with.
        set_pad_token(made, known.get("pad_token_id"))
    return made
