"""A fresh student of any architecture that transformers knows."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
import transformers
from torch import nn

from ..teachers.pretrained import find_auto_class

PROBLEMS = {
    "classification": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def from_config(
    model_type: str,
    num_labels: int,
    vocab_size: int,
    label_names: Sequence[str] | None = None,
    task: str = "classification",
    pad_token_id: int | None = None,
    auto_class: str = "AutoModelForSequenceClassification",
    attn_implementation: str | None = None,
    seed: int = 0,
    **config: Any,
) -> nn.Module:
    """A model with random weights; the same seed gives the same ones, whatever ran before.

    Args:
        model_type: as in a `config.json`: bert, distilbert, roberta, gpt2, llama, ...
        num_labels: size of the head; the data says it.
        vocab_size: size of the embeddings; the tokenizer says it.
        label_names: in order, written into the configuration.
        task: `classification`, `multi_label` or `regression`.
        pad_token_id: the tokenizer's.
        auto_class: the class of transformers that knows the task.
        attn_implementation: for example `eager`, which returns attention maps.
        seed: of the weights.
        config: fields of that model's configuration, as `hidden_size=96`.

    Raises:
        ValueError: for an unknown model type or field, and sizes that do not fit.
    """
    known = list(transformers.CONFIG_MAPPING)
    if model_type not in known:
        near = get_close_matches(str(model_type), known, n=3)
        raise ValueError(
            f"`model_type` {model_type!r} is unknown to transformers. "
            f"Nearest: {', '.join(near) or '-'}."
        )
    default = transformers.AutoConfig.for_model(model_type)
    for field in config:
        if not hasattr(default, field):
            near = get_close_matches(field, list(default.to_dict()), n=3)
            raise ValueError(
                f"A {model_type} has no configuration field {field!r}. "
                f"Nearest: {', '.join(near) or '-'}."
            )
    made = transformers.AutoConfig.for_model(model_type, **config)
    made.vocab_size = vocab_size
    if pad_token_id is not None:
        made.pad_token_id = pad_token_id
    set_labels(made, num_labels, label_names, task)
    width = getattr(made, "hidden_size", None)
    heads = getattr(made, "num_attention_heads", None)
    if width and heads and width % heads:
        raise ValueError(
            f"`hidden_size` must be a multiple of `num_attention_heads`, got {width} and {heads}."
        )
    options = {"attn_implementation": attn_implementation} if attn_implementation else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return find_auto_class(auto_class).from_config(made, dtype=torch.float32, **options)


def set_labels(config: Any, num_labels: int, names: Sequence[str] | None, task: str) -> None:
    """Write the number of labels, their names and the kind of problem into a configuration."""
    if task not in PROBLEMS:
        raise ValueError(f"`task` must be one of {', '.join(PROBLEMS)}, got {task!r}.")
    config.num_labels = num_labels
    config.problem_type = PROBLEMS[task]
    if names:
        if len(names) != num_labels:
            raise ValueError(f"There are {num_labels} labels, but {len(names)} names for them.")
        config.id2label = {i: str(name) for i, name in enumerate(names)}
        config.label2id = {str(name): i for i, name in enumerate(names)}
