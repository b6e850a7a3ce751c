"""The same training for two models: as many steps, and as many validations."""

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

# No batch has a number that this divides.
NEVER = 2**62


class Validations(Callback):
    """Counts the validations of a training, also over the cuts of one that is resumed."""

    def __init__(self) -> None:
        self.count = 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count it, unless Lightning only tries whether it works."""
        self.count += not trainer.sanity_checking

    def state_dict(self) -> dict[str, Any]:
        """The count, for a checkpoint."""
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.count = state_dict["count"]


class EvenlySpaced(Callback):
    """Validates a given number of times within a given number of steps, the last time at the end.

    How many batches that is depends on the length of an epoch: its last step may have fewer
    batches than others. Lightning is asked for it, for it knows what limits the epoch.

    Args:
        validations: how many.
        steps: of the optimizer.
    """

    def __init__(self, validations: int, steps: int):
        self.validations, self.steps = validations, steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing is due before a batch: a run that goes on would validate once more.

        Behind the last batch of an epoch Lightning wants to know that it is validated already, or
        it trains on that batch again.
        """
        trainer.val_check_batch = 1 if trainer.is_last_batch else NEVER

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Tell Lightning whether to validate after this batch."""
        epoch = trainer.num_training_batches
        total = batch_count(self.steps, epoch, trainer.accumulate_grad_batches)
        number = batch_idx + 1
        if trainer.current_epoch:
            number += trainer.current_epoch * int(epoch)
        due = number * self.validations // total > (number - 1) * self.validations // total
        # Lightning validates after each batch whose number this divides.
        trainer.val_check_batch = 1 if due else number + 1


def batch_count(steps: int, epoch: float, accumulated: int) -> int:
    """How many batches so many steps take.

    Args:
        steps: of the optimizer.
        epoch: how many batches an epoch has; infinite where nobody knows.
        accumulated: how many batches a step has, but for the last of an epoch.
    """
    if math.isinf(epoch):
        return steps * accumulated
    epochs, rest = divmod(steps, math.ceil(epoch / accumulated))
    return epochs * int(epoch) + min(rest * accumulated, int(epoch))


def same_budget(steps: int, validations: int, same_rows: bool) -> dict[str, Any]:
    """Arguments of [`train`][] for as many steps and validations as another model had.

    Equally many validations, because the best of many checkpoints is better than of few.

    Args:
        steps: that the other model took.
        validations: that it had.
        same_rows: this model is trained on the very same batches, which a stream cannot count: its
            epochs end where the other's ended, and so do its validations.
    """
    # The steps alone end it: no clock, and no callback that stops early.
    ends = {"max_steps": steps, "min_steps": steps, "max_time": None}
    if same_rows:
        return ends
    return {
        **ends,
        "max_epochs": -1,
        "val_check_interval": 1,
        "check_val_every_n_epoch": None,
        "more_callbacks": [EvenlySpaced(validations, steps)],
    }
