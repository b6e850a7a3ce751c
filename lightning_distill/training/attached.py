"""What a module asks of the Trainer that runs it, and what holds where none does."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L


class Attached(L.LightningModule):
    """A module that works in a Trainer's hands, and without one."""

    @property
    def is_attached(self) -> bool:
        """Whether a Trainer runs this module."""
        try:
            return self.trainer is not None
        except RuntimeError:
            return False

    def section(self, name: str) -> AbstractContextManager[Any]:
        """Name a part of a step to the trainer's profiler, which by default does nothing."""
        if not self.is_attached:
            return nullcontext()
        profiler = self.trainer.profiler  # type: ignore[attr-defined]
        return profiler.profile(f"[DistillationModule].{name}")

    def autocast(self) -> Any:
        """The precision of the trainer, as a context."""
        if not self.is_attached:
            return nullcontext()
        return self.trainer.precision_plugin.forward_context()
