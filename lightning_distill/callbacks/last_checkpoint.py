"""The checkpoint from which a run goes on."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from .sealed_checkpoints import seal_checkpoints


class LastCheckpoint(Checkpoint):
    """Keeps one checkpoint from which the run goes on exactly, always the newest.

    It is written at the end of every epoch, after every validation within one, and every so many
    steps if that is wanted; never between two batches of one optimizer step, whose gradients a
    checkpoint does not hold, and never before a validation that is due. A run that is killed while
    it is written keeps the one before; a file that was changed since is never gone on from.

    Args:
        dirpath: the folder; the trainer's `default_root_dir` by default.
        filename: without the ending `.ckpt`.
        every_n_train_steps: also after so many optimizer steps, for long epochs.

    Raises:
        ValueError: if `every_n_train_steps` is less than 1.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str = "last",
        every_n_train_steps: int | None = None,
    ):
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ValueError(
                f"`every_n_train_steps` must be at least 1, got {every_n_train_steps}."
            )
        self.dirpath, self.filename = dirpath, filename
        self.every_n_train_steps = every_n_train_steps
        # To be written as soon as a step has ended.
        self.due = False
        self._saved_step = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let checkpoints be written whole."""
        seal_checkpoints(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count the steps."""
        self.due, self._saved_step = False, trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, idx: int
    ) -> None:
        """Write if it is time, unless a validation or the end of the epoch is next."""
        every = self.every_n_train_steps
        if every is not None and trainer.global_step - self._saved_step >= every:
            self.due = True
        if self.due and ends_a_step(trainer) and not _validation_follows(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write within an epoch; at its end, when that is over."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.due = True
        if ends_a_step(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write."""
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        folder = Path(self.dirpath or trainer.default_root_dir)
        trainer.save_checkpoint(folder / f"{self.filename}.ckpt", weights_only=False)
        self.due, self._saved_step = False, trainer.global_step


def ends_a_step(trainer: L.Trainer) -> bool:
    """Whether the last batch was the last of an optimizer step, and not the last of an epoch.

    The last of `trainer.max_steps` ends an epoch, too.
    """
    done = trainer.fit_loop.batch_idx + 1
    is_last = trainer.is_last_batch or trainer.global_step == trainer.max_steps
    return done % trainer.accumulate_grad_batches == 0 and not is_last


def _validation_follows(trainer: L.Trainer) -> bool:
    every, batches = trainer.check_val_every_n_epoch, trainer.val_check_batch
    if not trainer.enable_validation or batches is None:
        return False
    loop = trainer.fit_loop
    if every is None:
        return (loop.total_batch_idx + 1) % batches == 0
    return (trainer.current_epoch + 1) % every == 0 and (loop.batch_idx + 1) % batches == 0
