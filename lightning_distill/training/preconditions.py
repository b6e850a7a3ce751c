"""What must hold between models, objective, optimizer and trainer before the first step."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn, Tensor

from ..models.batch import entry
from ..models.capture import read
from ..models.configuration import attention, is_encoder_decoder, use_eager_attention
from ..models.inputs import call_model
from ..models.peft_parts import is_adapted
from ..models.plain_tensors import plain_tensors
from ..models.source import Source
from ..models.submodules import unwrapped
from ..tasks import task_of_architecture

log = logging.getLogger("lightning_distill")


def check_teacher(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a teacher that training the student would change."""
    if student is teacher:
        raise ValueError(
            "student and teacher are the same object; copy.deepcopy one of them first."
        )
    memory = {
        t.untyped_storage().data_ptr()
        for p in teacher.parameters()
        if p.device.type != "meta"
        for t in plain_tensors(p)
    } - {0}
    shared = [
        n
        for n, p in student.named_parameters()
        if any(t.untyped_storage().data_ptr() in memory for t in plain_tensors(p))
    ]
    if not shared:
        return
    which = f"student and teacher share {len(shared)} parameters ({', '.join(shared[:3])})"
    if is_adapted(student):
        raise ValueError(
            f"{which}: peft puts adapters into the model itself, so the teacher would answer with "
            "the student's, or be put in train mode with it. Wrap a copy: "
            "lightning_distill.students.lora(copy.deepcopy(teacher))."
        )
    raise ValueError(
        f"{which}: training the student would change the teacher. Copy them with copy.deepcopy."
    )


def make_attentions(model: nn.Module | None, sources: Iterable[Source]) -> None:
    """Make the model compute attention maps if a source reads them.

    The default attention of transformers computes none that could be compared.
    """
    read = any(s.kind == "output" and s.name.endswith("attentions") for s in sources)
    if model is not None and read:
        use_eager_attention(model)


def check_unused(loss: Tensor, student: nn.Module, objective: nn.Module, strategy: Any) -> None:
    """Refuse early what DDP refuses in the second step, without saying why."""
    if type(strategy).__name__ != "DDPStrategy":
        return
    if getattr(strategy, "_ddp_kwargs", {}).get("find_unused_parameters"):
        return
    named = [
        (n, p)
        for model in (student, objective)
        for n, p in model.named_parameters()
        if p.requires_grad
    ]
    found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    unused = [n for (n, _), g in zip(named, found, strict=True) if g is None]
    if unused:
        whose = "criteria" if unused[0].startswith("terms.") else "student"
        raise ValueError(
            f"{len(unused)} parameters of the {whose} get no gradient from any term "
            f"({', '.join(unused[:3])}{', ...' if len(unused) > 3 else ''}), and DDP waits for "
            "all. Add a term that uses them, such as hard_label, freeze them, or set "
            "trainer.strategy=ddp_find_unused_parameters_true."
        )


def check_shift(terms: Mapping[str, Any], batch: Any, student: nn.Module) -> bool:
    """Refuse labels of a language model that stand one token beside what a term takes them for.

    The label of a position is the token that follows it, or, as Hugging Face's collators have it,
    the token that stands there, which the criterion then must move (`shift_labels`). Returns
    whether any term learns from labels to say what follows.
    """
    found = False
    ids = entry(batch, "input_ids")
    model = unwrapped(student)
    if is_encoder_decoder(model):
        # Labels are of the decoder's text, which is not `input_ids`.
        return False
    for name, term in terms.items():
        source = term.inputs.get("labels")
        if source is None or source.role != "batch" or not isinstance(ids, Tensor):
            continue
        labels = entry(batch, source.name)
        if not isinstance(labels, Tensor) or labels.shape != ids.shape or labels.dim() != 2:
            continue
        shifts = term.criterion.shift_labels
        counted = labels != -100
        task = task_of_architecture(type(model).__name__)
        if shifts and task.predicts_ids and not task.predicts_next:
            raise ValueError(
                f"Term {name!r} moves labels by one token, but those of {task.name} stand at their "
                "own position. Set `shift_labels` to false "
                f"(criteria.{name}.criterion.shift_labels=false)."
            )
        next_ones = (labels[:, :-1] == ids[:, 1:])[counted[:, :-1]]
        # Of labels in the last column alone it cannot be seen.
        follows = len(next_ones) > 0 and bool(next_ones.all())
        stands = bool((labels == ids)[counted].all())
        if follows == stands or counted.sum() < 2:
            # Neither, as in tagging, or it cannot be told.
            continue
        if follows and shifts:
            raise ValueError(
                f"Term {name!r} moves labels by one token, and {source} says already for each "
                "position which token follows: it would learn to skip one. Set `shift_labels` to "
                f"false (criteria.{name}.criterion.shift_labels=false)."
            )
        of_ids = any(source.kind == "head" for source in term.inputs.values())
        # A masked language model is to say what stands there, also where it is not masked.
        causal = task.predicts_next or (of_ids and not task.predicts_ids)
        if stands and not shifts and causal:
            raise ValueError(
                f"{source} holds for each position the token that stands there, and term {name!r} "
                "takes it for the one that follows: it would learn to repeat its input. Give it "
                "labels that say what follows (-100 where nothing does), or a criterion that moves "
                "them, as FusedLinearDivergence(shift_labels=True)."
            )
        found |= follows or bool(shifts)
    return found


def check_packed(role: str, model: nn.Module | None, inputs: Any) -> None:
    """Refuse packed rows for an attention that would let their documents see each other.

    That of transformers keeps documents apart by a mask, which flash attention does not take; it
    reads positions instead, of a single row alone.

    Args:
        role: what an error calls it.
        model: which will be given the inputs.
        inputs: keywords that it is given for a batch.
    """
    loaded, positions = attention(model), entry(inputs, "position_ids")
    if not isinstance(positions, Tensor) or entry(inputs, "attention_mask") is not None:
        return
    if loaded is not None and "flash" in loaded and positions.dim() == 2 and len(positions) > 1:
        raise ValueError(
            f"The {role} was loaded with attn_implementation={loaded!r}, which does not keep "
            "the documents of packed rows apart where a batch has several rows. Set "
            "attn_implementation=sdpa, or data.packing=false."
        )


def check_causal(role: str, model: nn.Module, inputs: Any) -> None:
    """Refuse a model that sees the tokens it is to predict, as an encoder does.

    Args:
        role: what an error calls it.
        model: a language model.
        inputs: keywords that it is given for a batch.
    """
    ids = entry(inputs, "input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2 or not len(ids):
        return
    rows, tokens = ids.shape
    row = {
        name: value[:1]
        for name, value in inputs.items()
        if isinstance(value, Tensor) and value.shape[:2] == (rows, tokens)
    }
    mask = row.get("attention_mask")
    last = (int(mask[0].nonzero().max()) if mask is not None and mask[0].any() else tokens - 1) or 1
    other = row["input_ids"].clone()
    # A neighbouring number is a token of the same vocabulary.
    other[0, last:] = torch.where(other[0, last:] > 0, other[0, last:] - 1, 1)
    with torch.no_grad():
        found = [
            read(Source(role, "output", "logits"), call_model(model, given, {}), {})
            for given in (row, {**row, "input_ids": other})
        ]
    # Equal to the last bit but where a kernel orders its sums by what it is given.
    within = 1e-5 if found[0].dtype in (torch.float32, torch.float64) else 1e-2
    # What a model says of padding, left of a text, may depend on anything.
    real = torch.ones(last, dtype=torch.bool) if mask is None else mask[0, :last].cpu() != 0
    before, after = (logits[0, :last].float().cpu()[real] for logits in found)
    if not len(before):
        return
    if (before - after).abs().max() > within * before.abs().max():
        raise ValueError(
            f"The {role} ({type(model).__name__}) sees the tokens that follow: what it says of a "
            "position changes with the next one, which it is to predict. Take a causal model, as "
            "student.model_type=gpt2, or an encoder with is_decoder=true."
        )


def check_label_order(values: Mapping[Source, Any], order: Sequence[int] | None) -> None:
    """Refuse layers whose outputs are labels in the teacher's own order."""
    for source, value in values.items():
        # Vectors of rows are none, nor what another head makes of them.
        inside = source.role == "teacher" and source.kind not in ("output", "pooled")
        if order is None or not inside or not isinstance(value, Tensor):
            continue
        if value.dim() and value.shape[-1] == len(order):
            raise ValueError(
                f"{source} has one entry per label, in the teacher's order, which is not the "
                "student's. Compare teacher.logits, which are put into the student's order."
            )
