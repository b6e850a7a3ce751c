"""What must hold between models, objective, optimizer and trainer before the first step."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn, Tensor

from .features import Source
from .submodules import unwrapped
from .teachers.fingerprint import plain_tensors

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
    if unwrapped(student) is not student:
        raise ValueError(
            f"{which}: peft puts adapters into the model itself, so the teacher would answer with "
            "the student's, or be put in train mode with it. Wrap a copy: "
            "lightning_distill.students.lora(copy.deepcopy(teacher))."
        )
    raise ValueError(
        f"{which}: training the student would change the teacher. Copy them with copy.deepcopy."
    )


def use_eager_attention(model: nn.Module | None, sources: Iterable[Source]) -> None:
    """Make the model compute attention maps if a source reads them.

    The default attention of transformers computes none that could be compared.
    """
    config = getattr(model, "config", None)
    if not any(s.kind == "output" and s.name == "attentions" for s in sources):
        return
    if getattr(config, "_attn_implementation", "eager") == "eager":
        return
    if hasattr(model, "set_attn_implementation"):
        log.info(
            "%s computes its attention eagerly, which is slower: %s returns no attention maps, "
            "and the objective reads them.",
            type(model).__name__,
            config._attn_implementation,  # type: ignore[union-attr]
        )
        model.set_attn_implementation("eager")  # type: ignore[union-attr,operator]
        return
    raise ValueError(
        f"The objective reads attentions, but {type(model).__name__} was loaded with "
        f"attn_implementation={config._attn_implementation!r}, "  # type: ignore[union-attr]
        "which returns none; load it with attn_implementation='eager'."
    )


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


def check_label_order(values: Mapping[Source, Any], order: Sequence[int] | None) -> None:
    """Refuse layers whose outputs are labels in the teacher's own order."""
    for source, value in values.items():
        inside = source.role == "teacher" and source.kind != "output"
        if order is None or not inside or not isinstance(value, Tensor):
            continue
        if value.dim() and value.shape[-1] == len(order):
            raise ValueError(
                f"{source} has one entry per label, in the teacher's order, which is not the "
                "student's. Compare teacher.logits, which are put into the student's order."
            )


def check_optimizer(
    optimizer: torch.optim.Optimizer, balance: nn.Module | None, trainer: Any
) -> None:
    """Refuse what an optimizer that keeps gradients apart cannot go with."""
    if not hasattr(optimizer, "keep_task_gradient"):
        return
    name = type(optimizer).__name__
    if balance is not None:
        raise ValueError(
            f"{name} keeps the gradients of labels and teacher apart, which "
            f"{type(balance).__name__} mixes; choose one of them."
        )
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        raise ValueError(
            f"{name} does not work with a gradient scaler; set trainer.precision to bf16-mixed "
            "or 32-true."
        )
    if trainer.gradient_clip_val and trainer.gradient_clip_algorithm == "value":
        raise ValueError(
            f"{name} cannot tell apart what clipping by value leaves; set "
            "trainer.gradient_clip_algorithm=norm."
        )
