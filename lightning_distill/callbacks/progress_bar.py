"""A bar that counts epochs as people do."""

from lightning.pytorch.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """As Lightning's, with `Epoch 1 of 12` for the first of twelve."""

    def _get_train_description(self, current_epoch: int) -> str:
        epochs = self.trainer.max_epochs
        limited = epochs is not None and epochs > 0
        text = f"Epoch {current_epoch + 1}" + (f" of {epochs}" if limited else "")
        return text.ljust(len(self.validation_description))
