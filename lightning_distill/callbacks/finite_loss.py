"""Stop a run whose loss is not finite, before the weights are."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from ..models.batch import row_numbers


class FiniteLoss(L.Callback):
    """Raises before a backward pass whose loss is NaN or infinite, so that the weights stay.

    Args:
        every_n_steps: how often to look; `None` is every step on the CPU and every 20th on
            other devices, where a look waits for all queued work.
    """

    def __init__(self, every_n_steps: int | None = None):
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"`every_n_steps` must be at least 1, got {every_n_steps}.")
        self.every_n_steps = every_n_steps
        self._rows: Any = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember which rows the step is about."""
        self._rows = row_numbers(batch)
        self._batch = batch_idx

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        """Look at the loss."""
        every = self.every_n_steps or (1 if loss.device.type == "cpu" else 20)
        if self._batch % every or torch.isfinite(loss):
            return
        terms = {
            name.removeprefix("train/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/") and name != "train/loss"
        }
        listed = ", ".join(f"{name}={value:.4g}" for name, value in terms.items())
        rows = f", rows {self._rows.tolist()[:8]}" if isinstance(self._rows, Tensor) else ""
        raise ValueError(
            f"The loss is {loss.item()} at step {trainer.global_step} (epoch "
            f"{trainer.current_epoch}, batch {self._batch}{rows}); the weights are those "
            f"of the step before. Terms: {listed}. Lower optimizer.lr or the "
            "weights, or look at those rows."
        )
