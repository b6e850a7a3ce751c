"""A run that is told to stop writes a checkpoint first."""

import os
import signal
import threading
from typing import Any

import lightning as L

from .last_checkpoint import ends_a_step, LastCheckpoint

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GracefulStop(L.Callback):
    """Ctrl-C or SIGTERM ends a fit behind the current optimizer step, with a checkpoint of it.

    The fit then ends as by a `KeyboardInterrupt`. A second signal ends it at once, and so does one
    that comes before the first step. With several processes one signal to any of them stops all.

    Args:
        last: writes the checkpoint; it comes behind this callback among the trainer's.
    """

    def __init__(self, last: LastCheckpoint):
        self.last = last
        # Asked of this process; agreed upon by all of them.
        self._asked = self._ending = self._training = False

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen in the place of Lightning, whose handler of SIGTERM waits for other processes."""
        self._listen(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen; from here on there are steps to wait for."""
        self._asked = self._ending = False
        self._training = True
        self._listen(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop, if the checkpoint is written."""
        self._stop()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop, if the checkpoint is written: by now the step before is logged, too."""
        self._stop()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, idx: int
    ) -> None:
        """Have the checkpoint written, at the end of a step."""
        if ends_a_step(trainer):
            self._agree(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """As at the end of a step."""
        if self._training and ends_a_step(trainer):
            self._agree(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """As at the end of a step."""
        self._agree(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop, also if this was the last step."""
        self._training = False
        self._stop()

    def _listen(self, trainer: L.Trainer) -> None:
        def handle(number: int, frame: Any) -> None:
            again, self._asked = self._asked, True
            # Others of the run's processes get the signal twice where its sender tells all of them.
            if not self._training or (again and trainer.is_global_zero):
                raise KeyboardInterrupt
            if not again and trainer.is_global_zero:
                # Not by `print`, which may be what was interrupted.
                os.write(2, b"\nStopping behind this step, with a checkpoint. Again: at once.\n")

        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, handle)

    def _agree(self, trainer: L.Trainer) -> None:
        asked = self._asked
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked and not self._ending:
            self._ending = self.last.due = True

    def _stop(self) -> None:
        if self._ending and not self.last.due:
            raise KeyboardInterrupt
