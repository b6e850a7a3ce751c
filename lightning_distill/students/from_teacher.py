"""A student cut from the teacher: some of its layers, with their weights."""

import copy
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..models.configuration import configuration, label_names as names_of_labels
from ..models.dropout import without_dropout
from ..models.freeze import freeze_parts
from ..models.generation import copy_generation_config
from ..models.label_order import label_order
from ..models.plain_tensors import plain_tensors
from ..models.pooling import dense_of, give_dense
from ..models.row_head import copy_row_head
from ..tasks import task_of_model
from .fewer_tokens import fewer_tokens
from .layer_stacks import built_on_paper, layer_stacks, Stack
from .vocabulary_cut import VocabularyCut
from .which_layers import Kept, which_layers

log = logging.getLogger("lightning_distill")

State = dict[str, torch.Tensor]


def from_teacher(
    teacher: nn.Module,
    layers: int | Sequence[int] | Mapping[str, int] | None = None,
    keep: str | Sequence[Any] | Mapping[str, Any] = "uniform",
    label_names: Sequence[str] | None = None,
    freeze: str | Sequence[str] | None = None,
    vocabulary: VocabularyCut | None = None,
    dropout: bool | None = None,
) -> nn.Module:
    """The same model with fewer layers, its weights copied from the teacher; trainable, float32.

    Args:
        teacher: a Hugging Face model; it stays as it is.
        layers: how many layers to keep; not needed if `keep` lists them. Of an encoder and a
            decoder, or of two towers, a number means each, and `{encoder: 6, decoder: 2}` tells
            them apart; what is not named keeps all. Of a model with stages, such as Swin, a list:
            `[1, 1, 3, 1]`.
        keep: which: `uniform`, `last`, `first`, `skip`, `every_2`, or numbers counted from 0, in
            the order they shall have. DistilBERT (Sanh et al., 2019) takes every second, PKD (Sun
            et al., 2019) the first. By name or by stage as `layers` is, if they shall differ.
            Where the teacher's first layer is not like the others, the student's first is that
            one, whatever strategy spreads the rest.
        label_names: in the order that the student shall have; that of the teacher by default.
        freeze: parts that stay as they are and are in eval mode, as `[encoder]`; see
            `freeze_parts`. An encoder with all of
            the teacher's layers then runs once in a step, for both.
        vocabulary: which of the teacher's tokens the student knows, see
            [`cut_vocabulary`][lightning_distill.students.cut_vocabulary]; by default all.
        dropout: false trains it without; `None` and true, as the teacher's configuration says.

    Returns:
        A model of the teacher's class that shares no memory with it, in train mode on the CPU,
        with the teacher's head.

    Raises:
        ValueError: if the model has no list of layers that can be cut, or not as many.
    """
    config = configuration(teacher)
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
    if vocabulary is not None:
        teacher = fewer_tokens(teacher, vocabulary)
    stacks = layer_stacks(teacher)
    if not stacks:
        raise ValueError(
            f"No field of the configuration of {name} counts a list of its layers, so that none "
            "can be left out: take a smaller model as student=pretrained or by _target_."
        )
    kept: Sequence[tuple[Kept, ...]] = which_layers(stacks, layers, keep, name)
    state = teacher.state_dict()
    kept, smaller = _fitting(teacher, stacks, kept, state)
    with torch.random.fork_rng(devices=[]):
        student = type(teacher)(smaller)
    dense = dense_of(teacher)
    if dense is not None:
        give_dense(student, copy.deepcopy(dense))
    copy_row_head(teacher, student)
    state = _cut(teacher, stacks, kept, state)
    order = label_order(label_names, names_of_labels(teacher))
    if order is not None and label_names is not None:
        state = _with_labels_in_order(state, type(teacher), smaller, order)
        task_of_model(teacher).write_labels(student.config, len(order), label_names)
    unfit = _unfit(state, student.state_dict())
    if unfit:
        numbers = [list(stage.numbers) for stages in kept for stage in stages]
        raise ValueError(
            f"The layers of {name} are not alike, so {', '.join(map(str, numbers))} cannot be kept "
            f"alone: {', '.join(unfit[:4])}. Keep others, or build the student with "
            "student=from_config."
        )
    student.load_state_dict(state)
    copy_generation_config(teacher, student)
    # What the class itself does not train, such as the sines of Marian's positions, stays frozen:
    # it is not saved either.
    student.float().train()
    if dropout is False:
        without_dropout(student)
    freeze_parts(student, freeze)
    return student


def _fitting(
    teacher: nn.Module, stacks: Sequence[Stack], kept: Sequence[tuple[Kept, ...]], state: State
) -> tuple[list[tuple[Kept, ...]], Any]:
    """What is kept, with the first layer of those stages where no other can take its place.

    That of a stage of ResNet changes the size of its input; that of ModernBERT has no norm.

    Returns:
        This, and the student's configuration.
    """
    config = _smaller_config(teacher, stacks, kept)
    made, cut = built_on_paper(type(teacher), config), _cut(teacher, stacks, kept, state)
    unfit = _unfit(cut, made.state_dict())
    found = []
    for stack, stages in zip(stacks, kept, strict=True):
        of_stack = []
        for paths, stage in zip(stack.paths, stages, strict=True):
            fits = not any(name.startswith(f"{p}.") for name in unfit for p in paths)
            of_stack.append(stage if fits else stage.with_the_first())
            if of_stack[-1] is not stage:
                log.info(
                    "student: the first layer of %s is not like the others, so it is kept: %s",
                    paths[0],
                    list(of_stack[-1].numbers),
                )
        found.append(tuple(of_stack))
    return found, _smaller_config(teacher, stacks, found)


def _smaller_config(
    teacher: nn.Module, stacks: Sequence[Stack], kept: Sequence[tuple[Kept, ...]]
) -> Any:
    smaller: Any = copy.deepcopy(teacher.config)
    for stack, stages in zip(stacks, kept, strict=True):
        stack.write(smaller, [stage.numbers for stage in stages])
    smaller.dtype = torch.float32
    return smaller


def _unfit(state: State, expected: State) -> list[str]:
    """Names of weights that only one of two models has, or that differ in shape."""
    return [
        name
        for name in [*expected, *(n for n in state if n not in expected)]
        if name not in state or name not in expected or state[name].shape != expected[name].shape
    ]


def _cut(
    teacher: nn.Module, stacks: Sequence[Stack], kept: Sequence[tuple[Kept, ...]], state: State
) -> State:
    """The weights of the layers that are kept, by their new names, and all that is in no layer."""
    for stack, stages in zip(stacks, kept, strict=True):
        for paths, stage in zip(stack.paths, stages, strict=True):
            for path in paths:
                state = _remapped(state, path, stage.numbers, _tables(teacher, path))
    return state


def _tables(teacher: nn.Module, path: str) -> set[str]:
    """Embeddings that the first layer holds for all of them, as that of T5 does: their names.

    Such as the bias of relative positions, which the others are handed on.
    """
    layers: Any = teacher.get_submodule(path)
    embeddings = [
        {name for name, part in layer.named_modules() if isinstance(part, nn.Embedding)}
        for layer in layers
    ]
    first = embeddings[0].difference(*embeddings[1:]) if len(embeddings) > 1 else set()
    return {f"{name}.weight" for name in first}


def _remapped(state: State, path: str, numbers: Sequence[int], tables: set[str]) -> State:
    pattern = re.compile(rf"{re.escape(path)}\.(\d+)\.(.*)")
    cut = {}
    for name, value in state.items():
        match = pattern.fullmatch(name)
        if match is None or (match[1] == "0" and match[2] in tables):
            cut[name] = value
        elif int(match[1]) in numbers:
            cut[f"{path}.{numbers.index(int(match[1]))}.{match[2]}"] = value
    return cut


def _with_labels_in_order(state: State, cls: Any, config: Any, order: Sequence[int]) -> State:
    """The weights, with those that count the labels in another order."""
    wider = copy.deepcopy(config)
    wider.num_labels = len(order) + 1
    shapes = {name: t.shape for name, t in built_on_paper(cls, wider).state_dict().items()}
    found = dict(state)
    for name, value in state.items():
        if name not in shapes:
            # A part that the class itself does not have, with labels of its own.
            continue
        for dim, (ours, theirs) in enumerate(zip(value.shape, shapes[name], strict=True)):
            if ours != theirs:
                found[name] = value.index_select(dim, torch.tensor(order, device=value.device))
    return found
