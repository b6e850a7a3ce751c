"""What a model's configuration says, if it has one; every model may be asked."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from .submodules import innermost

log = logging.getLogger("lightning_distill")

# Fields of a configuration that change with how a model was loaded, is run or is trained, or that
# name things, and leave its answers as they are. What data sets (tokens, labels) is known by the
# data.
NOT_DECIDING = frozenset(
    (
        *("architectures", "auto_map", "dtype", "torch_dtype", "quantization_config"),
        *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task"),
        *("name_or_path", "tokenizer_class", "transformers_version", "generation_config"),
        *("use_cache", "return_dict", "gradient_checkpointing", "chunk_size_feed_forward"),
        *("initializer_range", "initializer_factor", "task_specific_params"),
        # Seen in the weights.
        "tie_word_embeddings",
    )
)
# Beginnings and endings of the names of more of them.
NOT_DECIDING_PARTS = (
    ("_", "output_"),
    ("_token_id", "_token_ids", "dropout", "dropout_prob", "layerdrop"),
)


def configured(model: nn.Module | None, field: str) -> Any:
    """A field of a model's configuration; `None` if there is none."""
    config = configuration(model)
    return config.get(field) if isinstance(config, Mapping) else getattr(config, field, None)


def configured_text(model: nn.Module | None, field: str) -> Any:
    """As [`configured`][], of the part of a model of texts and pictures that reads the text."""
    config = configuration(model)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    return config.get(field) if isinstance(config, Mapping) else getattr(config, field, None)


def configuration(model: nn.Module | None) -> Any:
    """What a model says of itself, also where it is wrapped; `None` of one that says nothing."""
    # A teacher that reads its answers from disk has the configuration that it tells of itself.
    own = getattr(model, "config", None)
    return getattr(innermost(model), "config", None) if own is None else own


def deciding_fields(model: nn.Module | None) -> dict[str, Any]:
    """What of a model's configuration decides its answers beside its weights, as plain values.

    Empty for a model without a configuration of transformers.
    """
    config = configuration(model)
    return _deciding(config.to_dict()) if hasattr(config, "to_dict") else {}


def _deciding(fields: Mapping[str, Any]) -> dict[str, Any]:
    begins, ends = NOT_DECIDING_PARTS
    return {
        str(name): _deciding(value) if isinstance(value, Mapping) else value
        for name, value in fields.items()
        if not (
            value is None
            or name in NOT_DECIDING
            or str(name).startswith(begins)
            or str(name).endswith(ends)
        )
    }


def label_names(model: nn.Module | None) -> Mapping[int, str] | Sequence[str] | None:
    """The names of the labels that a model predicts, by number or in order."""
    names = configured(model, "id2label")
    return names if isinstance(names, Mapping | list | tuple) else None


def is_encoder_decoder(model: nn.Module | None) -> bool:
    """Whether a model reads with one stack of layers and writes with another, as T5 does."""
    return bool(configured(model, "is_encoder_decoder"))


def longest_input(model: nn.Module) -> int | None:
    """How many tokens a Hugging Face model can read, if it says so."""
    longest = configured(model, "max_position_embeddings")
    if longest is None:
        # Of Whisper, which reads a sound: how many tokens its decoder does.
        longest = configured(model, "max_target_positions")
    if not isinstance(longest, int):
        return None
    for name, layer in model.named_modules():
        padding = getattr(layer, "padding_idx", None)
        if name.endswith("position_embeddings") and isinstance(padding, int):
            # RoBERTa counts positions from behind that of padding.
            return longest - padding - 1
    return longest


def attention(model: nn.Module | None) -> str | None:
    """The implementation of attention that a model of transformers was loaded with.

    There is no public way to ask (transformers 5); the way to set it is public.
    """
    found = configured(model, "_attn_implementation")
    return None if found is None else str(found)


def use_eager_attention(model: nn.Module) -> None:
    """Make a model of transformers compute attention maps, as the default attention does not.

    Raises:
        ValueError: if it cannot be changed after loading.
    """
    loaded = attention(model)
    if loaded is None or loaded == "eager":
        return
    inner = innermost(model)
    name = type(inner).__name__
    if not hasattr(inner, "set_attn_implementation"):
        raise ValueError(
            f"The objective reads attentions, but {name} was loaded with "
            f"attn_implementation={loaded!r}, which returns none; load it with "
            "attn_implementation='eager'."
        )
    log.info(
        "%s computes its attention eagerly, which is slower: %s returns no attention maps, and "
        "the objective reads them.",
        name,
        loaded,
    )
    inner.set_attn_implementation("eager")


def pad_token(model: nn.Module | None) -> int | None:
    """The token that a model takes for padding; `None` if its configuration names none."""
    found = configured_text(model, "pad_token_id")
    return found if isinstance(found, int) else None


def set_pad_token(model: nn.Module, pad_token_id: int | None) -> None:
    """Tell a model which token its data is padded with, where it knows of none or of another.

    A classifier with a decoder, such as that of GPT-2, finds the last token of a row by it.

    Args:
        model: of transformers; any other model is left alone.
        pad_token_id: the tokenizer's; `None` leaves the model alone.
    """
    config = configuration(model)
    if pad_token_id is None or not hasattr(config, "pad_token_id"):
        return
    parts = {id(c): c for c in (config, getattr(config, "get_text_config", lambda: config)())}
    for part in parts.values():
        part.pad_token_id = pad_token_id
