"""What each model is given of a batch, and how it is called with it."""

from collections.abc import Mapping
from typing import Any

from torch import nn, Tensor

from .batch import batch_size, describe, entries, entry, is_pair, LABELS, labels_of, NamedTuple
from .compilation import readable
from .configuration import configured, is_encoder_decoder, pad_token
from .decoder_inputs import decoder_inputs
from .embeddings import generates
from .signature import accepts, input_names, signature
from .submodules import innermost

# Entries of a batch that are for the loss or for bookkeeping, never for a model.
NOT_INPUTS = (
    *(*LABELS, "answer_mask", "label_bytes", "place", "row", "scores", "teacher", "vectors"),
    *("window", "word_mask"),
)


def named(batch: Any, model: nn.Module) -> Any:
    """A tuple of three or more with the names of the forward's arguments; else the batch itself.

    The last one are the labels if the forward calls it so, or has no such argument any more.
    `(ids, mask, labels)` for a forward that takes something else in the third place stays without
    names: nobody can know whether it is that or the labels.
    """
    if type(batch) not in (tuple, list) or len(batch) < 3:
        return batch
    taken, count = signature(model), len(batch)
    names, required = taken.positional, [n for n in taken.positional if n in taken.required]
    if count <= len(names) and (len(required) == count or set(LABELS) & set(names[:count])):
        return NamedTuple(batch, names[:count])
    if names and count == len(names) + 1:
        return NamedTuple(batch, (*names, "labels"))
    return batch


def model_inputs(batch: Any, model: nn.Module) -> Any:
    """What of a batch `model` takes by name; of a pair the first; anything else as it is.

    Labels are withheld, for the loss would be computed for nothing, unless the forward cannot do
    without. Where a model makes the first tokens of its decoder of them, as T5 does, these are made
    here.

    Raises:
        ValueError: if the batch has nothing that the model takes, or is a tuple of which it is not
            known what it holds.
    """
    batch = named(batch, model)
    by_name = entries(batch)
    if isinstance(batch, NamedTuple) and not _takes_all(by_name, model):
        # Made for the student; the teacher's arguments may have other names.
        return tuple(v for n, v in zip(batch.names, batch, strict=True) if n not in NOT_INPUTS)
    if is_pair(batch) and by_name.keys() == {"labels"}:
        return batch[0]
    if not by_name:
        _check_tuple(batch, model)
        return batch
    chosen = _chosen(by_name, model)
    if not chosen:
        raise ValueError(
            f"{type(innermost(model)).__name__}.forward takes "
            f"{', '.join(input_names(model)) or 'nothing'}, but the batch has {describe(batch)}. "
            "Rename the entries, or override student_inputs and teacher_inputs."
        )
    made = _decoder_inputs(chosen, labels_of(batch), model)
    return {**_unmasked(chosen, model), **made}


def _unmasked(given: Mapping[str, Any], model: nn.Module) -> Mapping[str, Any]:
    """Copies of features where the model hides some of them in place, as Whisper does in training.

    That is SpecAugment (Park et al., 2019): what reads the batch next, such as the teacher, shall
    hear all of the sound.
    """
    if not (model.training and configured(model, "apply_spec_augment")):
        return given
    features = {k for k, v in given.items() if isinstance(v, Tensor) and v.is_floating_point()}
    return {k: v.clone() if k in features else v for k, v in given.items()}


def _takes_all(by_name: Mapping[str, Any], model: nn.Module) -> bool:
    names = input_names(model)
    return all(name in names for name in by_name if name not in NOT_INPUTS)


def _chosen(by_name: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    names, taken = input_names(model), signature(model)
    wanted = {k: v for k, v in by_name.items() if k not in NOT_INPUTS or k in taken.required}
    chosen = {k: v for k, v in wanted.items() if k in names}
    # Those of transformers take options by **kwargs, and no inputs.
    if taken.takes_any and not hasattr(innermost(model), "config"):
        further = {k: v for k, v in wanted.items() if isinstance(v, Tensor) or not chosen}
        chosen = {**further, **chosen}
    return chosen


def _decoder_inputs(given: Mapping[str, Any], labels: Any, model: nn.Module) -> dict[str, Any]:
    """What the decoder of a model reads, made of the labels where the batch does not have it."""
    present = {"decoder_input_ids", "decoder_inputs_embeds"} & given.keys()
    writes = isinstance(labels, Tensor) and is_encoder_decoder(model) and generates(model)
    if present or not writes or not accepts(model, "decoder_input_ids"):
        return {}
    return decoder_inputs(labels, model)


def _check_tuple(batch: Any, model: nn.Module) -> None:
    names = signature(model).positional
    if not isinstance(batch, tuple | list) or len(batch) < 3 or not names:
        return
    raise ValueError(
        f"The batch is a {type(batch).__name__} of {len(batch)}, and "
        f"{type(innermost(model)).__name__}.forward takes {', '.join(names[: len(batch) + 2])}"
        f"{', ...' if len(names) > len(batch) + 2 else ''}: it is not clear which of them are "
        "labels, and labels must not be taken for an input. Let the collate function return a "
        f'dict, as in {{"{names[0]}": ..., "labels": ...}}, or a pair (inputs, labels), or '
        "override student_inputs and teacher_inputs."
    )


def call_model(model: nn.Module, inputs: Any, options: dict[str, Any]) -> Any:
    """Run `model` on keywords, arguments or one tensor."""
    named_there = isinstance(inputs, Mapping) and "use_cache" in inputs
    if not named_there and "use_cache" not in options and configured(model, "use_cache"):
        # Keys and values for generation would only fill memory.
        options = {**options, "use_cache": False} if accepts(model, "use_cache") else options
    try:
        with readable():
            if isinstance(inputs, Mapping):
                return model(**inputs, **options)
            if isinstance(inputs, tuple | list):
                return model(*inputs, **options)
            return model(inputs, **options)
    except ValueError as error:
        if "pad" in str(error).lower() and _lacks_pad_token(model, inputs):
            raise ValueError(
                f"{type(innermost(model)).__name__} has no padding token, and the batch has "
                f"several rows: {str(error).splitlines()[0]} Set "
                "model.config.pad_token_id = tokenizer.pad_token_id before you give it."
            ) from error
        raise


def _lacks_pad_token(model: nn.Module, inputs: Any) -> bool:
    of_tokens = entry(inputs, "input_ids") is not None and hasattr(innermost(model), "config")
    return of_tokens and pad_token(model) is None and batch_size(inputs) > 1
