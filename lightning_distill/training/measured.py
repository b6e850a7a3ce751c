"""The hooks of validation, test and prediction."""

from typing import Any

import lightning as L
from torch import Tensor

from .evaluation import Evaluation


class Measured(L.LightningModule):
    """A module whose student is measured on every loader of a validation or a test."""

    _evaluation: Evaluation | None = None

    def on_validation_start(self) -> None:
        """Begin to measure."""
        self._begin_evaluation("val", len(self.trainer.num_val_batches))

    def on_test_start(self) -> None:
        """Begin to measure."""
        self._begin_evaluation("test", len(self.trainer.num_test_batches))

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Feed the metrics and log every term as `val/NAME`."""
        self._measure(batch, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Feed the metrics, of the teacher too (`test/teacher_NAME`), and log every term."""
        self._measure(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the mean of every term over all validation rows that count in it."""
        assert self._evaluation is not None
        self._evaluation.end()

    def on_test_epoch_end(self) -> None:
        """Log the mean of every term over all test rows that count in it."""
        assert self._evaluation is not None
        self._evaluation.end()

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The student's predictions for a batch, for `Trainer.predict`."""
        return self.predictions(self(batch))

    def predictions(self, outputs: Any) -> Tensor:
        """What is measured, from the outputs of a model."""
        raise TypeError(f"{type(self).__name__} must define `predictions()`.")

    def begin_teachers(self) -> None:
        """Put teachers on the module's device, before anything asks them."""

    def _begin_evaluation(self, stage: str, loaders: int) -> None:
        self.begin_teachers()
        self._evaluation = Evaluation(self, stage, loaders)

    def _measure(self, batch: Any, loader: int) -> None:
        assert self._evaluation is not None
        self._evaluation.step(batch, loader)
