"""Stop a run whose loss is not finite."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from ..models.batch import row_numbers

# What the flag holds as long as every loss was finite.
NEVER = 2**62


class FiniteLoss(L.Callback):
    """Raises when a loss is NaN or infinite, on every process, and lets no checkpoint hold it.

    On the CPU that is before its backward pass, so that the weights stay those of the step before.
    Other devices run behind the program, and asking for the loss would let them wait: there every
    loss leaves its mark in a number on the device, which is read one batch later, while the next
    is computed; that step has been taken then. It is read too before a checkpoint is written, and
    at the end of each epoch.

    Args:
        every_n_steps: how often to look, in batches; 1 by default.
    """

    def __init__(self, every_n_steps: int | None = None):
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"`every_n_steps` must be at least 1, got {every_n_steps}.")
        self.every_n_steps = every_n_steps
        self._rows: Any = None
        # The number, within the fit, of the first batch whose loss was not finite.
        self._first_bad: Tensor | None = None
        self._batches = 0
        self._reading: tuple[Tensor, Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin anew."""
        self._first_bad, self._batches, self._reading = None, 0, None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember which rows the step is about."""
        self._rows = row_numbers(batch)
        self._batch = batch_idx

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        """Look at the loss, or mark it and look at the mark of the batch before."""
        number = self._batches
        self._batches += 1
        every = self.every_n_steps or 1
        if self._is_at_hand(loss) and number % every == 0:
            if not torch.isfinite(loss):
                raise ValueError(self._words_of_this_batch(trainer, loss))
            return
        if self._first_bad is None:
            self._first_bad = torch.full((), NEVER, dtype=torch.int64, device=loss.device)
        # No branch that needs the value: nothing here waits for the device.
        bad = torch.where(torch.isfinite(loss.detach()), NEVER, number)
        self._first_bad = torch.minimum(self._first_bad, bad)
        if self._reading is not None:
            self._look(trainer, *self._reading)
            self._reading = None
        if number % every == 0:
            self._reading = _copied(self._first_bad)

    def _is_at_hand(self, loss: Tensor) -> bool:
        """Whether looking at the loss waits for nothing."""
        return loss.device.type == "cpu"

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look once more, for all processes together, before anything is written."""
        self._look_everywhere(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look before time is spent on weights that are lost."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._look_everywhere(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let nothing be written that is known to be lost."""
        if trainer.state.fn == "fit":
            self._look_everywhere(trainer)

    def _look_everywhere(self, trainer: L.Trainer) -> None:
        flag = self._first_bad
        if trainer.world_size > 1:
            device = trainer.strategy.root_device
            own = torch.full((), NEVER, device=device) if flag is None else flag
            # The smallest, as the largest of its negative: every strategy knows that.
            flag = -trainer.strategy.reduce(-own.clone(), reduce_op="max")  # type: ignore[operator]
        if flag is not None:
            self._look(trainer, flag, None)

    def _look(self, trainer: L.Trainer, flag: Tensor, copied: Any) -> None:
        if copied is not None:
            copied.synchronize()
        number = int(flag)
        if number == NEVER:
            return
        since = self._batches - 1 - number
        where = "of this process" if trainer.world_size == 1 else "of one of the processes"
        raise ValueError(
            f"The loss was NaN or infinite in batch {number} {where}, counted from 0 since the "
            f"training began or went on; it was found {since} batches later (epoch "
            f"{trainer.current_epoch}, batch {self._batch}, step {trainer.global_step}), and the "
            "weights may not be finite any more. The checkpoints that are written hold earlier "
            f"weights. {self._advice(trainer)}"
        )

    def _words_of_this_batch(self, trainer: L.Trainer, loss: Tensor) -> str:
        rows = f", rows {self._rows.tolist()[:8]}" if isinstance(self._rows, Tensor) else ""
        return (
            f"The loss is {loss.item()} at step {trainer.global_step} (epoch "
            f"{trainer.current_epoch}, batch {self._batch}{rows}); the weights are those of the "
            f"step before. {self._advice(trainer)}"
        )

    def _advice(self, trainer: L.Trainer) -> str:
        terms = {
            name.removeprefix("train/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/") and name != "train/loss"
        }
        listed = ", ".join(f"{name}={value:.4g}" for name, value in terms.items())
        return f"Terms: {listed}. Lower optimizer.lr or the weights, or look at those rows."


def _copied(flag: Tensor) -> tuple[Tensor, Any]:
    """The flag on its way to the program, and an event to wait for."""
    if flag.device.type != "cuda":
        return flag, None
    there = torch.empty((), dtype=flag.dtype, pin_memory=True)
    there.copy_(flag, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return there, event
