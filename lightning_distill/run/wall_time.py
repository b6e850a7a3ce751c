"""How long a training has taken, over all its parts."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class WallTime(Callback):
    """Counts the seconds of a training; of one that is resumed also those up to its checkpoint."""

    def __init__(self) -> None:
        self._before = 0.0
        self._start: float | None = None
        self._stop: float | None = None

    @property
    def seconds(self) -> float:
        """From the beginning of the first part until now, without the time between the parts."""
        if self._start is None:
            return self._before
        return self._before + (self._stop or time.perf_counter()) - self._start

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        self._start, self._stop = time.perf_counter(), None

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count no further."""
        self._stop = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """The seconds so far, for a checkpoint."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._before = state_dict["seconds"]
