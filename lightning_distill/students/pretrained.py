"""A pretrained Hugging Face model as the student, with a fresh head where it needs one."""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..models.dropout import without_dropout
from ..models.freeze import freeze_parts
from ..models.hugging_face import find_auto_class, load
from ..models.label_order import label_order
from ..models.remote_code import remote_code_is_trusted
from ..models.row_head import copy_row_head
from ..tasks import Task, task_named, task_of_architecture

log = logging.getLogger("lightning_distill")


def pretrained(
    path: str,
    num_labels: int | None = None,
    label_names: Sequence[str] | None = None,
    task: str | Task = "classification",
    auto_class: str | None = None,
    attn_implementation: str | None = None,
    freeze: str | Sequence[str] | None = None,
    dropout: bool | None = None,
) -> nn.Module:
    """Load a student in float32, ready to train.

    Args:
        path: a folder that `save_pretrained` wrote, or a name on the Hugging Face hub.
        num_labels: size of the head; another size than the file's makes a fresh head. By default
            that of `label_names`, 1 for a regression, or else the file's.
        label_names: in order; a head that was trained for the same names in another order, or
            for others, is replaced by a fresh one.
        task: a [`Task`][lightning_distill.tasks.Task], or the name of one.
        auto_class: the class of transformers that knows the task; by default that of `task`.
        attn_implementation: for example `eager`, which returns attention maps.
        freeze: parts that stay as they are and are in eval mode, as `[encoder]`; see
            `freeze_parts`.
        dropout: false trains it without dropout; `None` and true, as its configuration says.

    Raises:
        FileNotFoundError: if there is no such folder or model.
        ValueError: if weights other than the head's are missing.
    """
    task = task_named(task)
    auto_class = auto_class or task.auto_class()
    options: dict[str, Any] = {"trust_remote_code": remote_code_is_trusted()}
    if attn_implementation:
        options["attn_implementation"] = attn_implementation
    model, info = load(path, auto_class, dtype=torch.float32, **options)
    new = set(info["missing_keys"])
    lost = sorted(name for name in new if _in_body(name, model))
    if lost:
        raise ValueError(
            f"The student {path} lacks {', '.join(lost[:4])}{', ...' if len(lost) > 4 else ''}: "
            f"its weights do not belong to a {type(model).__name__}."
        )
    if task.predicts_ids:
        if new:
            # Its head is what was trained longest.
            raise ValueError(
                f"The student {path} lacks {', '.join(sorted(new)[:4])}: these would be random "
                "numbers. Is it a language model with a head of that kind?"
            )
        return _ready(model, freeze, dropout)
    stored = model.config.id2label
    if num_labels is None:
        num_labels = len(label_names or stored) if task.has_names else 1
    config = copy.deepcopy(model.config)
    task.write_labels(config, num_labels, label_names)
    if _same_labels(config.id2label, stored) and not _is_for_another_task(model.config, task):
        task.write_labels(model.config, num_labels, label_names)
    else:
        model, sized = _with_fresh_head(model, config, find_auto_class(auto_class), options)
        new |= sized
    if new:
        log.info("student: new weights, not in %s: %s", path, ", ".join(sorted(new)))
    return _ready(model, freeze, dropout)


def _ready(model: nn.Module, frozen: str | Sequence[str] | None, dropout: bool | None) -> nn.Module:
    model.train()
    if dropout is False:
        without_dropout(model)
    freeze_parts(model, frozen)
    return model


def _in_body(name: str, model: Any) -> bool:
    """Whether a weight belongs to what lies below the head and the pooler that comes with it."""
    if ".pooler." in f".{name}":
        return False
    body = next(path for path, module in model.named_modules() if module is model.base_model)
    return not body or name.startswith(f"{body}.")


def _same_labels(wanted: dict[int, str], stored: dict[int, str]) -> bool:
    try:
        return label_order(wanted, stored) is None
    except ValueError:
        return False


def _is_for_another_task(config: Any, task: Task) -> bool:
    """Whether the head in the files was trained for another task, such as tags of words."""
    for name in getattr(config, "architectures", None) or ():
        if not task.serves(name) and task_of_architecture(name).serves(name):
            return True
    return False


def _with_fresh_head(
    model: Any, config: Any, cls: Any, options: dict[str, Any]
) -> tuple[Any, set[str]]:
    """The model with random numbers where the labels count, and the names of these weights."""
    fresh = cls.from_config(config, dtype=torch.float32, **options)
    wider = copy.deepcopy(config)
    wider.num_labels = config.num_labels + 1
    with torch.device("meta"):
        probe = cls.from_config(wider, dtype=torch.float32, **options)
    shapes = {name: tensor.shape for name, tensor in probe.state_dict().items()}
    sized = {n for n, tensor in fresh.state_dict().items() if tensor.shape != shapes[n]}
    kept = {name: tensor for name, tensor in model.state_dict().items() if name not in sized}
    copy_row_head(model, fresh)
    fresh.load_state_dict(kept, strict=False)
    return fresh, sized
