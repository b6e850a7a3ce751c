"""A module is set up before any callback looks at its parameters."""

import lightning as L


class SetUpFirst(L.Callback):
    """Builds adapters before callbacks that copy the module, such as averages of the weights."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Set the module up; it does so once."""
        pl_module.setup(stage)
