"""What a batch holds: inputs of each model, labels, and rows that count."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn, Tensor

from .capture import accepts
from .submodules import unwrapped

# Entries of a batch that are for the loss or for bookkeeping, never for a model.
NOT_INPUTS = ("labels", "label", "label_bytes", "row", "teacher")


def model_inputs(batch: Any, model: nn.Module) -> Any:
    """What of a batch `model` takes by name; of a pair the first; anything else as it is."""
    if not isinstance(batch, Mapping):
        return batch[0] if isinstance(batch, tuple | list) and len(batch) == 2 else batch
    named = input_names(model)
    chosen = {k: v for k, v in batch.items() if k in named and k not in NOT_INPUTS}
    parameters = inspect.signature(unwrapped(model).forward).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    # Hugging Face models take options by **kwargs, not inputs.
    if not chosen and takes_any and not hasattr(unwrapped(model), "config"):
        chosen = {k: v for k, v in batch.items() if k not in NOT_INPUTS}
    if not chosen:
        raise ValueError(
            f"{type(unwrapped(model)).__name__}.forward takes {', '.join(named) or 'nothing'}, "
            f"but the batch has {', '.join(map(str, batch))}. Rename the entries, or override "
            "student_inputs and teacher_inputs."
        )
    return chosen


def input_names(model: nn.Module) -> list[str]:
    """The keywords that a model takes by name."""
    # A teacher that reads its answers from disk takes what the live one took.
    own = getattr(model, "input_names", None)
    if isinstance(own, list):
        return own
    parameters = inspect.signature(unwrapped(model).forward).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def call_model(model: nn.Module, inputs: Any, options: dict[str, Any]) -> Any:
    """Run `model` on keywords, arguments or one tensor."""
    if "use_cache" not in options and getattr(getattr(model, "config", None), "use_cache", False):
        # Keys and values for generation would only fill memory.
        options = {**options, "use_cache": False} if accepts(model, "use_cache") else options
    if isinstance(inputs, Mapping):
        return model(**inputs, **options)
    if isinstance(inputs, tuple | list):
        return model(*inputs, **options)
    return model(inputs, **options)


def labels_of(batch: Any) -> Tensor | None:
    """The labels of a batch: its entry, the second of a pair, or none."""
    if isinstance(batch, Mapping):
        return batch.get("labels", batch.get("label"))
    return batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 else None


def counted_rows(batch: Any) -> Tensor | None:
    """Which rows are not repeats that only even out the ranks; `None` if all."""
    rows = batch.get("row") if isinstance(batch, Mapping) else None
    if rows is None or bool((rows >= 0).all()):
        return None
    return rows >= 0


def take_rows(value: Any, rows: Tensor | None) -> Any:
    """Those rows of a tensor, or of each in a list or dict, that count."""
    if rows is None or value is None:
        return value
    if isinstance(value, list):
        return [take_rows(v, rows) for v in value]
    if isinstance(value, Mapping):
        return {name: take_rows(v, rows) for name, v in value.items()}
    if not isinstance(value, Tensor):
        return value
    return value[rows] if value.dim() and value.shape[0] == rows.shape[0] else value


def batch_size(batch: Any) -> int:
    """How many rows a batch has."""
    if isinstance(batch, Tensor):
        return batch.shape[0]
    entries = batch.values() if isinstance(batch, Mapping) else batch
    return next((e.shape[0] for e in entries if isinstance(e, Tensor) and e.dim()), 1)


def longest_input(model: nn.Module) -> int | None:
    """How many tokens a Hugging Face model can read, if it says so."""
    longest = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not isinstance(longest, int):
        return None
    for name, layer in model.named_modules():
        if name.endswith("position_embeddings") and getattr(layer, "padding_idx", None) is not None:
            # RoBERTa counts positions from behind that of padding.
            return longest - layer.padding_idx - 1  # type: ignore[operator,return-value]
    return longest


def check_largest_id(largest: int, model: nn.Module, role: str, where: str) -> None:
    """Refuse a token id that the model's embedding does not have."""
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    size = getattr(embeddings, "num_embeddings", None)
    if size is not None and largest >= size:
        raise ValueError(
            f"The {role} knows {size} token ids, but the {where} holds id {largest}: its "
            "tokenizer is another one. Give each model its own tokenizer "
            "(data.tokenizer for the student, data.teacher_tokenizer for the teacher)."
        )


def check_vocabulary(batch: Any, model: nn.Module | None, role: str) -> None:
    """Refuse token ids that the embedding does not have; torch's own error names none."""
    if model is None or not isinstance(batch, Mapping):
        return
    own = batch.get("teacher") if role == "teacher" else None
    ids = (own if isinstance(own, Mapping) else batch).get("input_ids")
    if isinstance(ids, Tensor) and ids.numel():
        check_largest_id(int(ids.max()), model, role, "batch")
    longest = longest_input(model)
    if isinstance(ids, Tensor) and longest is not None and ids.shape[-1] > longest:
        raise ValueError(
            f"The {role} reads at most {longest} tokens, but the batch has rows of "
            f"{ids.shape[-1]}. Lower data.max_length."
        )
