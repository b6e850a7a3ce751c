"""A second head of a model that tags words: labels of whole rows, such as the intent of a command.

It is a part of the model that reads one pooled vector of each row. The model itself returns what it
did before; `student.pooled:cls,row_head` names what the part makes of it. Chen, Zhuo and Wang,
*BERT for Joint Intent Classification and Slot Filling*, 2019, https://arxiv.org/abs/1902.10909.
"""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import nn, Tensor

from .configuration import configured
from .submodules import unwrapped

# The part's name in a model, in a source, and the folder beside a saved model.
ROW_HEAD = "row_head"


class RowHead(nn.Module):
    """Dropout and a linear map from a pooled vector to the labels of a row.

    Args:
        width: of the vector.
        names: of the labels, in the order of their numbers.
        pooling: how the vector is made of a row's tokens: `cls`, `mean`, `max` or `last`.
        dropout: of the vector, in training.
    """

    def __init__(
        self, width: int, names: Sequence[str], pooling: str = "cls", dropout: float = 0.1
    ):
        super().__init__()
        self.names, self.pooling = [str(name) for name in names], pooling
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(width, len(self.names))

    def forward(self, vectors: Float[Tensor, "rows width"]) -> Float[Tensor, "rows labels"]:
        """Logits of the labels of each row."""
        return self.linear(self.dropout(vectors.to(self.linear.weight.dtype)))


def row_head_of(model: Any) -> RowHead | None:
    """The head of a model for labels of whole rows, if it has one."""
    found = getattr(unwrapped(model), ROW_HEAD, None)
    return found if isinstance(found, RowHead) else None


def give_row_head(model: nn.Module, head: RowHead) -> nn.Module:
    """The model with a head for labels of whole rows, which is trained with it."""
    unwrapped(model).add_module(ROW_HEAD, head)
    return model


def drop_row_head(model: nn.Module) -> None:
    """Take the head for labels of whole rows off a model that has one."""
    delattr(unwrapped(model), ROW_HEAD)


def fresh_row_head(model: nn.Module, names: Sequence[str], seed: int) -> RowHead:
    """A head for a model; the same seed draws the same weights, whatever ran before.

    Args:
        model: of transformers; its configuration says how wide hidden states are, and the
            dropout of its own head.
        names: of the labels, in the order of their numbers.
        seed: draws the weights.

    Raises:
        ValueError: if the configuration does not say the width.
    """
    width = configured(model, "hidden_size")
    if not isinstance(width, int):
        raise ValueError(
            "Labels of whole rows are read from the hidden states of a model whose configuration "
            f"says its hidden_size, and a {type(unwrapped(model)).__name__} says none."
        )
    asked = (configured(model, n) for n in ("classifier_dropout", "hidden_dropout_prob", "dropout"))
    dropout = next((float(d) for d in asked if isinstance(d, int | float)), 0.1)
    with torch.random.fork_rng(devices=[]):
        head = RowHead(width, names, dropout=dropout)
    spread = configured(model, "initializer_range")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.linear.weight.normal_(
            0.0, spread if isinstance(spread, float) else 0.02, generator=generator
        )
        head.linear.bias.zero_()
    return head


def copy_row_head(source: nn.Module, model: nn.Module) -> nn.Module:
    """The model with a copy of the head of another, if that has one."""
    head = row_head_of(source)
    return model if head is None else give_row_head(model, copy.deepcopy(head))


def body_of(model: Any) -> nn.Module:
    """The part of a model of transformers that returns hidden states; any other model itself."""
    inner = unwrapped(model)
    found = getattr(inner, "base_model", inner)
    return found if isinstance(found, nn.Module) else inner


def write_row_head(folder: Path, model: Any, weights: bool = True) -> None:
    """Write the head beside a saved model, if it has one.

    Args:
        folder: that holds the model.
        model: that was saved.
        weights: false writes all but the weights.
    """
    head = row_head_of(model)
    if head is None:
        return
    own = folder / ROW_HEAD
    own.mkdir(exist_ok=True)
    settings = {
        "width": head.linear.in_features,
        "label_names": head.names,
        "pooling": head.pooling,
        "dropout": head.dropout.p,
    }
    (own / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if weights:
        state = {n: t.detach().cpu().contiguous() for n, t in head.state_dict().items()}
        save_file(state, own / "model.safetensors")


def with_row_head(model: nn.Module, folder: Path, weights: bool = True) -> nn.Module:
    """A model with its head for labels of whole rows, where its folder has one.

    Args:
        model: that was loaded from the folder.
        folder: any; one without such a head changes nothing.
        weights: false leaves them as they are drawn, for who loads them from elsewhere.

    Raises:
        FileNotFoundError: for a head without weights.
        ValueError: for weights that do not fit what the folder says of them.
    """
    own = folder / ROW_HEAD
    if not (own / "config.json").is_file():
        return model
    said = json.loads((own / "config.json").read_text(encoding="utf-8"))
    # Its weights are read, or copied from elsewhere: drawing some would use up random numbers.
    with torch.random.fork_rng(devices=[]):
        head = RowHead(said["width"], said["label_names"], said["pooling"], said["dropout"])
    if weights:
        file = own / "model.safetensors"
        if not file.is_file():
            raise FileNotFoundError(
                f"{own} holds no model.safetensors with the weights of the head for rows."
            )
        try:
            head.load_state_dict(load_file(file))
        except RuntimeError as error:
            raise ValueError(
                f"The weights in {file} do not fit its config.json: {' '.join(str(error).split())}"
            ) from error
    like = next(model.parameters())
    return give_row_head(model, head.to(like.dtype).train(model.training))
