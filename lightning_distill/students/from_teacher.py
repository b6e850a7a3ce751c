"""A student cut from the teacher: some of its layers, with their weights."""

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..models.configuration import is_encoder_decoder, label_names as names_of_labels
from ..models.label_order import label_order
from ..models.plain_tensors import plain_tensors
from ..models.pooling import dense_of, give_dense
from ..objective.layer_mapping import kept_layers
from ..tasks import task_of_model

COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def from_teacher(
    teacher: nn.Module,
    layers: int | None = None,
    keep: str | Sequence[int] = "uniform",
    label_names: Sequence[str] | None = None,
) -> nn.Module:
    """The same model with fewer layers, its weights copied from the teacher; trainable, float32.

    Args:
        teacher: a Hugging Face encoder or decoder; it stays as it is.
        layers: how many layers to keep; not needed if `keep` lists them.
        keep: which: `uniform`, `last`, `first`, `skip`, `every_2`, or numbers counted from 0, in
            the order they shall have. DistilBERT (Sanh et al., 2019) takes every second, PKD (Sun
            et al., 2019) the first.

        label_names: in the order that the student shall have; that of the teacher by default.

    Returns:
        A model of the teacher's class that shares no memory with it, in train mode on the CPU,
        with the teacher's head.

    Raises:
        ValueError: if the model has no list of layers that can be cut, or not as many.
    """
    config = getattr(teacher, "config", None)
    name = type(teacher).__name__
    if config is None or not hasattr(teacher, "base_model_prefix"):
        raise ValueError(
            f"student=from_teacher cuts Hugging Face models, got a {name}; build the student "
            "yourself and name it by _target_."
        )
    if any(len(plain_tensors(weight)) > 1 for weight in teacher.parameters()):
        raise ValueError(
            "student=from_teacher copies the teacher's weights, and these are quantised: leave "
            "teacher.quantization=null, or take another student."
        )
    if is_encoder_decoder(teacher):
        raise ValueError(
            f"A {name} has an encoder and a decoder; student=from_teacher cuts models with one "
            "list of layers."
        )
    field = next((f for f in COUNTS if isinstance(getattr(config, f, None), int)), None)
    if field is None:
        raise ValueError(f"The configuration of {name} does not say how many layers it has.")
    of = getattr(config, field)
    numbers = kept_layers(layers, of, keep)
    path = _list_of_layers(teacher, of)
    smaller = _smaller_config(config, field, of, numbers)
    with torch.random.fork_rng(devices=[]):
        student = type(teacher)(smaller)
    dense = dense_of(teacher)
    if dense is not None:
        give_dense(student, copy.deepcopy(dense))
    state = _remapped(teacher.state_dict(), path, numbers)
    order = label_order(label_names, names_of_labels(teacher))
    if order is not None and label_names is not None:
        state = _with_labels_in_order(state, type(teacher), smaller, order)
        task_of_model(teacher).write_labels(student.config, len(order), label_names)
    loaded = student.load_state_dict(state, strict=False)
    unfit = [*loaded.missing_keys, *loaded.unexpected_keys]
    if unfit:
        # Such as the position bias of T5, which only the first layer has.
        raise ValueError(
            f"The layers of {name} are not alike, so {numbers} cannot be kept alone: "
            f"{', '.join(unfit[:4])}. Keep others, or build the student with student=from_config."
        )
    if hasattr(teacher, "generation_config"):
        student.generation_config = copy.deepcopy(teacher.generation_config)
    return student.float().requires_grad_(True).train()


def _with_labels_in_order(
    state: dict[str, torch.Tensor], cls: Any, config: Any, order: Sequence[int]
) -> dict[str, torch.Tensor]:
    """The weights, with those that count the labels in another order."""
    wider = copy.deepcopy(config)
    wider.num_labels = len(order) + 1
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in cls(wider).state_dict().items()}
    found = dict(state)
    for name, value in state.items():
        for dim, (ours, theirs) in enumerate(zip(value.shape, shapes[name], strict=True)):
            if ours != theirs:
                found[name] = value.index_select(dim, torch.tensor(order, device=value.device))
    return found


def _list_of_layers(model: nn.Module, count: int) -> str:
    found = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    # Inner lists, such as experts, may be equally long: the layers are the outermost.
    found = [p for p in found if not any(p.startswith(f"{q}.") for q in found)]
    if len(found) != 1:
        raise ValueError(
            f"{type(model).__name__} has {len(found)} lists of {count} layers "
            f"({', '.join(found) or 'none'}), so it is not clear which to cut."
        )
    return found[0]


def _smaller_config(config: Any, field: str, of: int, numbers: Sequence[int]) -> Any:
    smaller = copy.deepcopy(config)
    for name, value in config.to_dict().items():
        # Per-layer settings, such as layer_types, are cut with the layers; other lists can be
        # as long by chance.
        other = name == "architectures" or name.endswith(("_token_id", "_token_ids"))
        if isinstance(value, list | tuple) and len(value) == of and not other:
            setattr(smaller, name, [value[i] for i in numbers])
    setattr(smaller, field, len(numbers))
    smaller.dtype = torch.float32
    return smaller


def _remapped(
    state: dict[str, torch.Tensor], path: str, numbers: Sequence[int]
) -> dict[str, torch.Tensor]:
    pattern = re.compile(rf"{re.escape(path)}\.(\d+)\.(.*)")
    cut = {}
    for name, value in state.items():
        match = pattern.fullmatch(name)
        if match is None:
            cut[name] = value
            continue
        for new, old in enumerate(numbers):
            if int(match[1]) == old:
                cut[f"{path}.{new}.{match[2]}"] = value
    return cut
