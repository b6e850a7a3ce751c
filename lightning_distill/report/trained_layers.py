"""How alike the layers of a trained student and of its teacher are."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.batch import entry, labels_of, teacher_entries
from ..models.forward import run_model
from ..models.inputs import named
from ..models.modes import in_eval_mode
from ..models.source import Source
from ..objective.layer_similarity import layer_similarity
from ..objective.objective import Objective
from ..objective.term import Term
from ..training.module import DistillationModule

log = logging.getLogger("lightning_distill")

# What models of transformers return of their layers: those of one stack, or of two.
STACKS = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")
UNLABELLED = -100
WHOLE = (None, None)


@dataclass(frozen=True)
class TrainedLayers:
    """One stack of layers of both models.

    Attributes:
        students: the student's layers, as sources.
        teachers: the teacher's.
        cka: linear CKA of each with each, the mean over some batches.
        pairs: the numbers of those that a term has compared.
    """

    students: list[str]
    teachers: list[str]
    cka: Float[Tensor, "students teachers"]
    pairs: list[tuple[int, int]]


def trained_layers(module: DistillationModule, batches: Iterable[Any]) -> dict[str, TrainedLayers]:
    """How alike the layers are, by what both models call them, such as `hidden_states`.

    Only layers of tokens that both models read are compared. Where a model does not return its
    layers, or a cache has not kept them, there are none.

    Args:
        module: with the student as it was trained, on one device with its teacher.
        batches: on that device.
    """
    seen: dict[str, list[Tensor]] = {}
    with in_eval_mode(module.student), torch.no_grad():
        for i, batch in enumerate(batches):
            # What the first batch does not show is not asked for again.
            for stack in STACKS if i == 0 else list(seen):
                found = _of_batch(module, named(batch, module.student), stack)
                if found is not None:
                    seen.setdefault(stack, []).append(found)
    compared = {stack: torch.stack(parts).mean(dim=0) for stack, parts in seen.items()}
    return {
        stack: TrainedLayers(
            [f"student.{stack}[{i}]" for i in range(cka.shape[0])],
            [f"teacher.{stack}[{i}]" for i in range(cka.shape[1])],
            cka,
            _paired(module.objective, stack, (cka.shape[0], cka.shape[1])),
        )
        for stack, cka in compared.items()
    }


def _of_batch(module: DistillationModule, batch: Any, stack: str) -> Tensor | None:
    taught_by = module.taught_by
    # Tokens of its own are other pieces of the text.
    if taught_by is None or teacher_entries(batch) is not None:
        return None
    ours, theirs = (Source(role, "output", stack, WHOLE) for role in ("student", "teacher"))
    try:
        own = run_model(module.student, module.student_forward, batch, [ours])[1][ours]
        others = taught_by.answers(batch, [theirs], module)[1][theirs]
    except ValueError:
        # Most models return no layers, or not under this name.
        return None
    except Exception as error:
        # A run that has ended well does not fail for this.
        log.info("Layers are not compared: %s", error)
        return None
    shapes = {tuple(x.shape[:2]) for x in (*own, *others)}
    if not own or not others or len(shapes) > 1 or any(x.dim() != 3 for x in (*own, *others)):
        return None
    return layer_similarity(own, others, _mask(batch, stack, own[0])).cpu()


def _mask(batch: Any, stack: str, layer: Tensor) -> Tensor:
    """Which tokens count; all where the batch does not say it."""
    if stack.startswith("decoder"):
        labels = labels_of(batch)
        mask = None if labels is None else labels != UNLABELLED
    else:
        mask = entry(batch, "attention_mask")
    if mask is None or mask.shape != layer.shape[:2]:
        mask = torch.ones(layer.shape[:2], dtype=torch.bool, device=layer.device)
    return mask.bool()


def _paired(objective: Objective, stack: str, counts: tuple[int, int]) -> list[tuple[int, int]]:
    """The numbers of the layers that terms compare with each other."""
    pairs = []
    for term in objective.terms.values():
        own = term.pairs if isinstance(term, Term) else []
        # Each with each is not a choice of pairs.
        for pair in own if len(own) <= max(counts) else []:
            numbers = [
                source.item % count
                for role, count in zip(("student", "teacher"), counts, strict=True)
                for source in pair.values()
                if (source.role, source.kind, source.name) == (role, "output", stack)
                and isinstance(source.item, int)
            ]
            if len(numbers) == 2:
                pairs.append((numbers[0], numbers[1]))
    return sorted(set(pairs))
