"""Stop a run whose loss or gradient is not finite."""

from collections import deque
from typing import Any

import lightning as L
import torch
from torch import Tensor

from .culprits import culprit, rows_of

# What the flag holds as long as every loss was finite.
NEVER = 2**62


class FiniteLoss(L.Callback):
    """Raises when a loss or its gradient is NaN or infinite, and lets no checkpoint hold it.

    That is so on every process. On the CPU it is before the step, so that the weights stay those of
    the step before. With float16 and a scaler of the loss, which leaves such steps out by itself,
    gradients are not looked at.

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
        # With their numbers within the fit: where a mark is read later, the one before is needed.
        self._recent: deque[tuple[int, Any]] = deque(maxlen=2)
        # The number, within the fit, of the first batch whose loss was not finite.
        self._first_bad: Tensor | None = None
        self._batches = 0
        self._reading: tuple[Tensor, Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin anew."""
        self._first_bad, self._batches, self._reading = None, 0, None
        self._recent.clear()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep no batch."""
        self._recent.clear()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember what the step is about."""
        self._recent.append((self._batches, batch))
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
                raise ValueError(self._words_of_this_batch(trainer, pl_module, loss))
            return
        first_bad = self._mark(loss.detach(), number)
        if self._reading is not None:
            self._look(trainer, pl_module, *self._reading)
            self._reading = None
        if number % every == 0:
            self._reading = _copied(first_bad)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the gradient of the step, or mark it: a finite loss may have one that is not."""
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        found = [p.grad for group in optimizer.param_groups for p in group["params"]]
        gradients = [g for g in found if g is not None and g.layout is torch.strided]
        if not gradients:
            return
        norm = torch.nn.utils.get_total_norm(gradients)
        number = self._batches - 1
        if not self._is_at_hand(norm) or number % (self.every_n_steps or 1):
            self._mark(norm, number)
        elif not torch.isfinite(norm):
            raise ValueError(self._words_of_gradient(trainer, pl_module))

    def _mark(self, value: Tensor, number: int) -> Tensor:
        """Remember the batch of the first value that is not finite."""
        if self._first_bad is None:
            self._first_bad = torch.full((), NEVER, dtype=torch.int64, device=value.device)
        # No branch that needs the value: nothing here waits for the device.
        bad = torch.where(torch.isfinite(value), NEVER, number)
        self._first_bad = torch.minimum(self._first_bad, bad)
        return self._first_bad

    def _is_at_hand(self, loss: Tensor) -> bool:
        """Whether looking at the loss waits for nothing."""
        return loss.device.type == "cpu"

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look once more, for all processes together, before anything is written."""
        self._look_everywhere(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look before time is spent on weights that are lost."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._look_everywhere(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let nothing be written that is known to be lost."""
        if trainer.state.fn == "fit":
            self._look_everywhere(trainer, pl_module)

    def _look_everywhere(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        flag = self._first_bad
        if trainer.world_size > 1:
            device = trainer.strategy.root_device
            own = torch.full((), NEVER, device=device) if flag is None else flag
            # The smallest, as the largest of its negative: every strategy knows that.
            flag = -trainer.strategy.reduce(-own.clone(), reduce_op="max")  # type: ignore[operator]
        if flag is not None:
            self._look(trainer, module, flag, None)

    def _look(
        self, trainer: L.Trainer, module: L.LightningModule, flag: Tensor, copied: Any
    ) -> None:
        if copied is not None:
            copied.synchronize()
        number = int(flag)
        if number == NEVER:
            return
        since = self._batches - 1 - number
        own = self._first_bad is not None and int(self._first_bad) == number
        where = "of this process" if own else "of one of the processes"
        batch = next((b for n, b in self._recent if own and n == number), None)
        rows, of = ("", "") if batch is None else (rows_of(batch), culprit(module, batch, True))
        raise ValueError(
            f"The loss or its gradient was NaN or infinite in batch {number} {where}{rows}, "
            f"counted from 0 since the training began or went on; it was found {since} batches "
            f"later (epoch {trainer.current_epoch}, batch {self._batch}, step "
            f"{trainer.global_step}), and the weights may not be finite any more. The "
            f"checkpoints that are written hold earlier weights. {of}{self._advice(trainer)}"
        )

    def _words_of_this_batch(
        self, trainer: L.Trainer, module: L.LightningModule, loss: Tensor
    ) -> str:
        batch = self._recent[-1][1]
        rows, of = rows_of(batch), culprit(module, batch)
        return (
            f"The loss is {loss.item()} at step {trainer.global_step} (epoch "
            f"{trainer.current_epoch}, batch {self._batch}{rows}); the weights are those of the "
            f"step before. {of}{self._advice(trainer)}"
        )

    def _words_of_gradient(self, trainer: L.Trainer, module: L.LightningModule) -> str:
        bad = [
            name
            for name, parameter in module.named_parameters()
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
        ]
        # Each may be finite, and their norm too large for its type.
        of = f"of {bad[0]}" if bad else "as a whole"
        more = f" and {len(bad) - 1} more" if bad[1:] else ""
        rows = rows_of(self._recent[-1][1])
        return (
            f"The gradient {of}{more} is NaN or infinite at step {trainer.global_step} (epoch "
            f"{trainer.current_epoch}, batch {self._batch}{rows}), though the loss is finite; the "
            f"weights are those of the step before. {self._advice(trainer)}"
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
