"""A fresh student of any architecture that transformers knows."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from ..models.hugging_face import find_auto_class
from ..models.memory import check_memory, check_sizes
from ..tasks import Task, task_named


def from_config(
    model_type: str,
    num_labels: int | None = None,
    vocab_size: int | None = None,
    label_names: Sequence[str] | None = None,
    task: str | Task = "classification",
    pad_token_id: int | None = None,
    eos_token_id: int | None = None,
    auto_class: str | None = None,
    attn_implementation: str | None = None,
    seed: int = 0,
    image_size: int | Sequence[int] | None = None,
    **config: Any,
) -> nn.Module:
    """A model with random weights; the same seed gives the same ones, whatever ran before.

    Args:
        model_type: as in a `config.json`: bert, distilbert, roberta, gpt2, llama, ...
        num_labels: size of the head; the data says it. A head over the vocabulary needs none.
        vocab_size: size of the embeddings; the tokenizer says it. Models of pictures have none.
        label_names: in order, written into the configuration.
        task: a [`Task`][lightning_distill.tasks.Task], or the name of one.
        pad_token_id: the tokenizer's.
        eos_token_id: the tokenizer's.
        auto_class: the class of transformers that knows the task; by default that of `task`.
        attn_implementation: for example `eager`, which returns attention maps.
        seed: of the weights.
        image_size: pixels of a side, or height and width; the data says it. Models that read
            pictures of any size do without.
        config: fields of that model's configuration, as `hidden_size=96`; `None` is its default.

    Raises:
        ValueError: for an unknown model type or field, and sizes that do not fit.
    """
    config = {name: value for name, value in config.items() if value is not None}
    task = task_named(task)
    labelled = not task.predicts_ids
    known = list(transformers.CONFIG_MAPPING)
    if model_type not in known:
        near = get_close_matches(str(model_type), known, n=3)
        raise ValueError(
            f"`model_type` {model_type!r} is unknown to transformers. "
            f"Nearest: {', '.join(near) or '-'}."
        )
    default = transformers.AutoConfig.for_model(model_type)
    reads_ids = hasattr(default, "vocab_size")
    for name, size, asked in (
        ("num_labels", num_labels, labelled),
        ("vocab_size", vocab_size, reads_ids),
    ):
        if asked and (size is None or size < 1):
            raise ValueError(f"`{name}` must be at least 1, got {size}.")
    if image_size is not None and hasattr(default, "image_size"):
        config = {"image_size": image_size, **config}
    config = {**task.config_fields(default), **config}
    for field in config:
        # Methods are attributes too, and a field of their name would replace them.
        if not hasattr(default, field) or callable(getattr(default, field)):
            fields = [*default.to_dict(), *default.attribute_map]
            near = get_close_matches(field, fields, n=3)
            hint = f"Nearest: {', '.join(near)}. " if near else ""
            raise ValueError(
                f"A {model_type} has no configuration field {field!r}. {hint}null leaves it out, "
                f"as in student.{field}=null."
            )
    _check_sizes(default, config)
    check_sizes({**config, "num_labels": num_labels, "vocab_size": vocab_size})
    _check_heads(default, config)
    try:
        made = transformers.AutoConfig.for_model(model_type, **config)
    except StrictDataclassError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"This is no configuration of a {model_type}: {reason}") from error
    if reads_ids:
        made.vocab_size = vocab_size
    for name, number in (("pad_token_id", pad_token_id), ("eos_token_id", eos_token_id)):
        if number is not None:
            setattr(made, name, number)
    task.write_labels(made, num_labels, label_names)
    cls = find_auto_class(auto_class or task.auto_class())
    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False}
    if attn_implementation:
        options["attn_implementation"] = attn_implementation
    check_memory(made.to_dict(), lambda: cls.from_config(made, **options), 4)
    with torch.random.fork_rng(devices=[]):
        # Weights are drawn on the CPU; torch.manual_seed would also reset every GPU's generator.
        torch.default_generator.manual_seed(seed)
        try:
            return cls.from_config(made, **options)
        except ValueError as error:
            # transformers goes on to list every model it has.
            raise ValueError(
                f"No {cls.__name__} can be made of a {model_type}: {str(error).splitlines()[0]}"
            ) from error


# Fields that count something, by the names that models have in common.
SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "max_position_embeddings",
)


def _check_sizes(default: Any, given: Mapping[str, Any]) -> None:
    """Refuse what torch would divide by, or build no layer of."""
    sizes = {*SIZES, *(default.attribute_map.get(name, name) for name in SIZES)}
    for name, value in given.items():
        # Of other types transformers says so itself.
        if name in sizes and isinstance(value, int) and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")


def _check_heads(default: Any, given: Mapping[str, Any]) -> None:
    """Refuse a width that does not divide among the heads, where their size follows from it."""
    given = {default.attribute_map.get(name, name): value for name, value in given.items()}

    def size(name: str) -> Any:
        return given.get(default.attribute_map.get(name, name), getattr(default, name, None))

    width, heads = size("hidden_size"), size("num_attention_heads")
    if not (isinstance(width, int) and isinstance(heads, int)) or width % max(heads, 1) == 0:
        return
    usual = default.hidden_size // default.num_attention_heads
    if "head_dim" in given or (getattr(default, "head_dim", None) or usual) != usual:
        return
    raise ValueError(
        f"`hidden_size` must be a multiple of `num_attention_heads`, got {width} and {heads}."
    )
