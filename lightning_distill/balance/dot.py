"""DOT: an optimizer that remembers the teacher's gradient longer than that of the labels."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.compilation import gradients_before_step
from ._gradients import mean_over_ranks


class DOT(torch.optim.Optimizer):
    r"""Stochastic gradient descent with a momentum of its own for the teacher's part.

    $$v_t \leftarrow (\mu + \Delta) v_t + g_t, \quad v_l \leftarrow (\mu - \Delta) v_l + g_l, \quad
    \theta \leftarrow \theta - \gamma (v_t + v_l)$$

    where $g_l$ is the gradient of the terms that read no teacher, to which weight decay is added,
    and $g_t$ that of the others. With $\Delta = 0$, or where [`keep_task_gradient`][] is not called
    because there is no teacher, it is SGD with momentum. [`DistillationModule`][] makes the calls.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        momentum: $\mu$.
        delta: $\Delta$; the paper takes 0.075 on CIFAR-100 and 0.09 on ImageNet.
        weight_decay: times the parameters, added to the gradient.

    References:
        Zhao et al., *DOT: A Distillation-Oriented Trainer*, 2023,
        https://arxiv.org/abs/2307.08436, algorithm 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.05,
        momentum: float = 0.9,
        delta: float = 0.075,
        weight_decay: float = 0.0,
    ):
        if lr < 0 or weight_decay < 0:
            raise ValueError(
                f"`lr` and `weight_decay` must not be negative, got {lr} and {weight_decay}."
            )
        if not (delta >= 0 and momentum - delta >= 0 and momentum + delta < 1):
            raise ValueError(
                "`momentum` - `delta` and `momentum` + `delta` must both lie from 0 to below 1, "
                f"as momenta; got {momentum} and {delta}."
            )
        defaults = {"lr": lr, "momentum": momentum, "delta": delta, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self._task: dict[Tensor, Tensor] = {}

    def keep_task_gradient(self, loss: Tensor, share: float = 1.0) -> None:
        """Add the gradient of the terms that read no teacher to what the next step tells apart.

        Args:
            loss: their weighted sum for one batch; its graph is kept.
            share: of this batch in the step, 1 over the number of accumulated batches.
        """
        parameters = [p for group in self.param_groups for p in group["params"]]
        found: Sequence[Tensor | None] = [None] * len(parameters)
        if loss.requires_grad:
            found = gradients_before_step(loss, parameters)
        for p, g in zip(parameters, found, strict=True):
            new = torch.zeros_like(p) if g is None else share * g.detach()
            self._task[p] = self._task[p] + new if p in self._task else new

    def scale_task_gradient(self, factor: float | Tensor) -> None:
        """Follow what was done to the whole gradient, such as clipping its norm."""
        for gradient in self._task.values():
            gradient.mul_(factor)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; after it, the task's gradient is kept anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        apart = bool(self._task)
        for group in self.param_groups:
            delta = group["delta"] if apart else 0.0
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group, delta)
        self._task = {}
        return loss

    def _update(self, p: Tensor, group: dict[str, Any], delta: float) -> None:
        # The whole gradient is the mean over the ranks already.
        of_task = mean_over_ranks(self._task[p]) if p in self._task else p.grad
        of_teacher = p.grad - of_task  # type: ignore[operator]
        state = self.state[p]
        if not state:
            state["task"], state["teacher"] = torch.zeros_like(p), torch.zeros_like(p)
        decayed = of_task + group["weight_decay"] * p  # type: ignore[operator]
        state["task"].mul_(group["momentum"] - delta).add_(decayed)
        state["teacher"].mul_(group["momentum"] + delta).add_(of_teacher)
        p.sub_(group["lr"] * (state["task"] + state["teacher"]))
