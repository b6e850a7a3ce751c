"""A run that its steps end is validated at its end, too."""

from typing import Any

import lightning as L


class LastValidation(L.Callback):
    """Validates after the last of `trainer.max_steps`, wherever that is within an epoch.

    Lightning validates at the end of an epoch alone. Without this the weights of the last steps,
    after which the learning rate is lowest, could never be the best ones.
    """

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Tell Lightning, which asks after this, that a validation is due."""
        if trainer.global_step == trainer.max_steps:
            # It validates after each batch whose number this divides.
            trainer.val_check_batch = 1
