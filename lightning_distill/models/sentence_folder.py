"""Folders that sentence-transformers writes and loads: a model, how it is pooled, what maps it."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from .pooling import DENSE, Dense, dense_of, give_dense, NORMALISED
from .row_head import ROW_HEAD
from .submodules import unwrapped

log = logging.getLogger("lightning_distill")

MODULES = "modules.json"
# Our names of the ways of pooling, and the fields of theirs that are true for them.
FIELDS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "last": "pooling_mode_lasttoken",
}
# As `pooling_mode` has them in folders of later versions.
MODES = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last"}
ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
}


def write_sentence_folder(
    folder: Path, model: Any, pooling: str, normalised: bool, max_length: int | None
) -> None:
    """Write beside a saved model what sentence-transformers needs to give the same vectors.

    Args:
        folder: that holds the model and its tokenizer.
        model: that was saved; what maps its vectors is written too.
        pooling: `mean`, `cls`, `max` or `last`.
        normalised: whether vectors have length 1.
        max_length: longer texts are cut, in tokens; `None` leaves it to the model.
    """
    dense = dense_of(model)
    kinds = ["Transformer", "Pooling", *(["Dense"] if dense else [])]
    kinds += ["Normalize"] if normalised else []
    modules = []
    for i, kind in enumerate(kinds):
        path = "" if i == 0 else f"{i}_{kind}"
        (folder / path).mkdir(exist_ok=True)
        modules.append(
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        )
    _write(folder / MODULES, modules)
    _write(folder / "sentence_bert_config.json", _without_none(max_seq_length=max_length))
    fields: dict[str, Any] = {field: how == pooling for how, field in FIELDS.items()}
    width = unwrapped(model).config.hidden_size
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **fields})
    if dense is not None:
        settings = {
            "in_features": dense.linear.in_features,
            "out_features": dense.linear.out_features,
            "bias": dense.linear.bias is not None,
            "activation_function": ACTIVATIONS[dense.name],
        }
        _write(folder / "2_Dense" / "config.json", settings)
        state = {n: t.detach().cpu().contiguous() for n, t in dense.state_dict().items()}
        save_file(state, folder / "2_Dense" / "model.safetensors")


def with_sentence_parts(model: nn.Module, folder: Path, weights: bool = True) -> nn.Module:
    """A model with what maps its pooled vectors, where its folder of sentence-transformers has it.

    Args:
        model: that was loaded from the folder.
        folder: any; one that sentence-transformers does not know changes nothing.
        weights: false leaves them as they are drawn, for who loads them from elsewhere.

    Raises:
        ValueError: for a part that would change the vectors and is not known here.
    """
    for part in _parts(folder):
        kind = part["type"].rpartition(".")[2]
        path = folder / part["path"]
        if kind == "Dense":
            give_dense(model, _dense(path, weights))
        elif kind not in ("Transformer", "Pooling", "Normalize", "Dropout"):
            raise ValueError(
                f"{folder} is a model of sentence-transformers with a part {part['type']}, which "
                "is not known here; its vectors would be others. Known are Transformer, "
                "Pooling, Dense and Normalize."
            )
    return model


def copy_sentence_folder(source: Path, folder: Path, model: Any) -> None:
    """Write beside a saved model what is said of it in another folder.

    Args:
        source: any; one that sentence-transformers does not know writes nothing.
        folder: that holds the model.
        model: that was saved.
    """
    kinds = {part["type"].rpartition(".")[2]: source / part["path"] for part in _parts(source)}
    if kinds:
        said = json.loads((source / "sentence_bert_config.json").read_text(encoding="utf-8"))
        pooling = pooling_of(kinds["Pooling"] / "config.json")
        longest = said.get("max_seq_length")
        write_sentence_folder(folder, model, pooling, "Normalize" in kinds, longest)


def pooling_in(folder: Path) -> str | None:
    """How the vectors of a folder are pooled, as in `mean,normalised`.

    `None` where sentence-transformers does not know the folder.
    """
    kinds = {part["type"].rpartition(".")[2]: folder / part["path"] for part in _parts(folder)}
    if "Pooling" not in kinds:
        return None
    pooling = pooling_of(kinds["Pooling"] / "config.json")
    return f"{pooling},{NORMALISED}" if "Normalize" in kinds else pooling


def check_sentence_folder(folder: Path, pooling: str, role: str) -> None:
    """Say where vectors are pooled in another way than the model of a folder was trained for.

    Args:
        folder: any; one that sentence-transformers does not know says nothing.
        pooling: how they are pooled here.
        role: `student` or `teacher`.
    """
    for part in _parts(folder):
        if part["type"].rpartition(".")[2] != "Pooling":
            continue
        own = pooling_of(folder / part["path"] / "config.json")
        if own != pooling:
            log.warning(
                "%s was trained with pooling=%s, and data.task pools by %s. Pool it as it was "
                "trained: %s.pooled:%s in the inputs of the terms, or "
                "'data.task={_target_: lightning_distill.tasks.Embedding, pooling: %s}'.",
                folder,
                own,
                pooling,
                role,
                own,
                own,
            )


def pooling_of(config: Path) -> str:
    """How a `1_Pooling/config.json` pools, by our name, or by theirs if we do not know it."""
    found = json.loads(config.read_text(encoding="utf-8"))
    mode = found.get("pooling_mode")
    if mode is not None:
        return MODES.get(mode, str(mode)) if isinstance(mode, str) else ",".join(map(str, mode))
    named = {field: how for how, field in FIELDS.items()}
    true = [name for name, value in found.items() if name.startswith("pooling_mode") and value]
    return ",".join(named.get(name, name) for name in true)


def plain_state(model: Any) -> dict[str, Any]:
    """The weights of a model without its parts that are written into folders of their own.

    That is what maps its vectors (`2_Dense`), and what tells labels of whole rows (`row_head`).
    """
    parts = tuple(f"{part}." for part in (DENSE, ROW_HEAD))
    state = unwrapped(model).state_dict()
    return {name: value for name, value in state.items() if not name.startswith(parts)}


def _parts(folder: Path) -> list[dict[str, Any]]:
    path = folder / MODULES
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _dense(folder: Path, weights: bool) -> Dense:
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    asked = str(settings.get("activation_function", ACTIVATIONS["tanh"])).rpartition(".")[2]
    known = {path.rpartition(".")[2]: name for name, path in ACTIVATIONS.items()}
    if asked not in known:
        raise ValueError(
            f"{folder} has activation_function {asked!r}; known here are {', '.join(known)}."
        )
    sizes = settings["in_features"], settings["out_features"]
    made = Dense(*sizes, settings.get("bias", True), known[asked])
    if not weights:
        return made
    file = folder / "model.safetensors"
    if file.is_file():
        state = load_file(file)
    elif (folder / "pytorch_model.bin").is_file():
        state = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    else:
        raise FileNotFoundError(f"{folder} holds no model.safetensors with the weights of Dense.")
    made.load_state_dict(state)
    return made


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
