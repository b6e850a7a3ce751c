"""Optimizer and clipping of a module's trainable parameters."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn, Tensor

from ..objective.objective import Objective


def adamw(groups: Any) -> torch.optim.Optimizer:
    """The optimizer by default: AdamW at 1e-4."""
    return torch.optim.AdamW(groups, lr=1e-4)


def trainable(*modules: nn.Module) -> list[nn.Parameter]:
    """The parameters of modules that are trained."""
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def trainable_by_name(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model that are trained, by their names."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def parameter_groups(*modules: nn.Module) -> list[dict[str, Any]]:
    """What is trained, in two groups: parameters of one dimension get no weight decay.

    Raises:
        ValueError: if nothing is trained.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in trainable(*modules):
        (decayed if parameter.dim() > 1 else plain).append(parameter)
    if not decayed and not plain:
        raise ValueError(
            "Nothing is trainable: every parameter of the student is frozen. "
            "Call student.requires_grad_(True), or leave some layers unfrozen."
        )
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]


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


def keep_task_gradient(trainer: Any, objective: Objective, losses: Mapping[str, Tensor]) -> None:
    """Tell an optimizer that treats the teacher's gradient apart which part is not of it."""
    for optimizer in trainer.optimizers:
        keep = getattr(optimizer, "keep_task_gradient", None)
        of_labels = None if keep is None else objective.without_teacher(losses)
        if keep is not None and of_labels is not None:
            keep(of_labels, 1.0 / trainer.accumulate_grad_batches)


def clip(module: Any, optimizer: Any, value: float | None, algorithm: str | None) -> None:
    """Clip as the trainer says; an optimizer that keeps a part of the gradient is told."""
    scale = getattr(getattr(optimizer, "optimizer", optimizer), "scale_task_gradient", None)
    before = _norm(optimizer) if scale is not None and value else None
    module.clip_gradients(optimizer, value, algorithm)
    if scale is not None and before is not None:
        scale(_norm(optimizer) / before.clamp(min=1e-12))


def _norm(optimizer: Any) -> Tensor:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
