"""A pretrained Hugging Face model as the student, with a fresh head where it needs one."""

import logging
from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoConfig

from ..labels import label_order
from ..teachers.pretrained import load
from .from_config import set_labels

log = logging.getLogger("lightning_distill")


def pretrained(
    path: str,
    num_labels: int | None = None,
    label_names: Sequence[str] | None = None,
    task: str = "classification",
    auto_class: str = "AutoModelForSequenceClassification",
    attn_implementation: str | None = None,
) -> nn.Module:
    """Load a student in float32, ready to train.

    Args:
        path: a folder that `save_pretrained` wrote, or a name on the Hugging Face hub.
        num_labels: size of the head; another size than the file's makes a fresh head.
        label_names: in order; a head that was trained for the same names in another order, or
            for others, is replaced by a fresh one.
        task: `classification`, `multi_label` or `regression`.
        auto_class: the class of transformers that knows the task.
        attn_implementation: for example `eager`, which returns attention maps.

    Raises:
        FileNotFoundError: if there is no such folder or model.
        ValueError: if weights other than the head's are missing.
    """
    options = {"dtype": torch.float32, "attn_implementation": attn_implementation}
    model, info = load(path, auto_class, **options)
    stored = model.config.id2label
    fresh_head = False
    if num_labels is not None:
        try:
            moved = label_order(label_names or stored, stored) is not None
        except ValueError:
            moved = True
        if model.config.num_labels != num_labels or moved:
            config = AutoConfig.from_pretrained(path)
            set_labels(config, num_labels, label_names, task)
            model, info = load(
                path, auto_class, config=config, ignore_mismatched_sizes=True, **options
            )
            fresh_head = True
        else:
            set_labels(model.config, num_labels, label_names, task)
    missing = sorted(info["missing_keys"])
    body = model.base_model_prefix + "."
    lost = [name for name in missing if name.startswith(body) and ".pooler." not in f".{name}"]
    if lost:
        raise ValueError(
            f"The student {path} lacks {', '.join(lost[:4])}{', ...' if len(lost) > 4 else ''}: "
            f"its weights do not belong to a {type(model).__name__}."
        )
    if missing or fresh_head:
        log.info("student: the head is fresh (%s)", ", ".join(missing) or f"{num_labels} labels")
    return model.train()
