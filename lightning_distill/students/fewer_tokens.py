"""A model that knows fewer tokens: the rows of its embeddings and heads that are kept."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..models.configuration import configuration
from ..models.embeddings import vocabulary_size
from ..models.generation import copy_generation_config
from ..models.plain_tensors import is_quantized
from ..models.pooling import dense_of, give_dense
from ..models.row_head import copy_row_head
from .layer_stacks import built_on_paper
from .vocabulary_cut import VocabularyCut

FIELD = "vocab_size"
# Of Marian, where both sides share one.
DECODER = "decoder_vocab_size"
# Fields of a configuration that name tokens by their numbers: endings, and further names.
ENDS = ("_token_id", "_token_ids")
NAMES = frozenset({"suppress_tokens", "begin_suppress_tokens", "bad_words_ids"})


def fewer_tokens(model: nn.Module, cut: VocabularyCut) -> nn.Module:
    """The model with the tokens of a smaller tokenizer, and all else as it is.

    Embeddings, heads and biases of the tokens that stay are those of the model, so that it answers
    to the same tokens as before, and predicts the same of those that stay. What its configuration
    calls by number, such as the end token, has its new number.

    Args:
        model: of transformers; it stays as it is.
        cut: of the tokenizer that the model reads.

    Returns:
        A model of the same class, in the same mode, in float32, on the CPU.

    Raises:
        ValueError: for a model that has no vocabulary of its own, or a smaller one than the
            tokenizer.
    """
    config: Any = configuration(model)
    name = type(model).__name__
    size = getattr(config, FIELD, None)
    if not isinstance(size, int) or not hasattr(model, "base_model_prefix"):
        raise ValueError(
            f"student.vocabulary cuts models of transformers that read text and say their {FIELD}, "
            f"got a {name}. Leave student.vocabulary=null."
        )
    if any(map(is_quantized, model.parameters())):
        raise ValueError(
            "student.vocabulary copies the teacher's weights, and these are quantised: leave "
            "teacher.quantization=null."
        )
    if max(len(cut.whole), int(cut.ids.max()) + 1) > size:
        raise ValueError(
            f"The teacher ({name}) knows {size} token ids, and its tokenizer has "
            f"{len(cut.whole)}: it is another one. Name the folder of its own, as in "
            "data.tokenizer=DIR."
        )
    wider, smaller = copy.deepcopy(config), copy.deepcopy(config)
    for field in (FIELD, DECODER):
        if getattr(config, field, None) == size:
            setattr(wider, field, size + 1)
            setattr(smaller, field, len(cut.ids))
    smaller.dtype, smaller.name_or_path = torch.float32, ""
    _renumber(smaller, cut.places)
    shapes = {n: t.shape for n, t in built_on_paper(type(model), wider).state_dict().items()}
    state = {
        n: _kept(value, shapes.get(n, value.shape), cut) for n, value in model.state_dict().items()
    }
    with torch.random.fork_rng(devices=[]):
        made: Any = type(model)(smaller)
    if vocabulary_size(made) != len(cut.ids):
        raise ValueError(
            f"student.vocabulary does not know how {name} makes vectors of tokens: its embeddings "
            f"do not follow from {FIELD}. Leave student.vocabulary=null."
        )
    dense = dense_of(model)
    if dense is not None:
        give_dense(made, copy.deepcopy(dense))
    copy_row_head(model, made)
    made.load_state_dict(state)
    copy_generation_config(model, made)
    _renumber(getattr(made, "generation_config", None), cut.places)
    return made.float().train(model.training)


def _kept(value: torch.Tensor, wider: torch.Size, cut: VocabularyCut) -> torch.Tensor:
    """A weight without the tokens that are gone, along each dimension that counts them."""
    value = value.detach().cpu()
    for dim, (ours, more) in enumerate(zip(value.shape, wider, strict=True)):
        if ours != more:
            value = value.index_select(dim, torch.from_numpy(cut.ids))
    return value


def _renumber(config: Any, places: Mapping[int, int]) -> None:
    """Write the new numbers of tokens into a configuration."""
    if config is None:
        return
    for field, value in config.to_dict().items():
        if value is not None and (field.endswith(ENDS) or field in NAMES):
            setattr(config, field, _placed(value, places))


def _placed(value: Any, places: Mapping[int, int]) -> Any:
    """A number, or lists of them, by their new places; what is gone is left out."""
    if isinstance(value, list | tuple):
        found = [_placed(entry, places) for entry in value]
        return [entry for entry in found if entry is not None] or None
    return places.get(value)
