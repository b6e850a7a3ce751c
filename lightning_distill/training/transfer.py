"""Batches on their way to a model: the hooks of Lightning that a training batch passes."""

from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden

HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def transferred(module: Any, batch: Any, data: Any = None, device: Any = None) -> Any:
    """The batch as `training_step` is given it: through each hook, on the module's device.

    A hook that the data module overrides takes the place of the module's, as in Lightning.

    Args:
        module: a LightningModule, with a trainer or without.
        batch: as its loader gives it.
        data: the data module; that of the trainer by default.
        device: where it goes; the module's by default.
    """
    trainer = module.trainer if module.is_attached else None
    data = data if data is not None else getattr(trainer, "datamodule", None)
    if trainer is not None:
        batch = trainer.precision_plugin.convert_input(batch)
    before, move, after = (_owner(module, data, name) for name in HOOKS)
    batch = before(batch, 0)
    batch = move(batch, module.device if device is None else device, 0)
    return after(batch, 0)


def changes_batches(module: Any) -> bool:
    """Whether the module or its data module overrides a hook that a batch passes."""
    data = module.trainer.datamodule
    owners = [module] if data is None else [module, data]
    return any(is_overridden(name, owner) for owner in owners for name in HOOKS)


def _owner(module: Any, data: Any, name: str) -> Any:
    overridden = data is not None and is_overridden(name, data)
    return getattr(data if overridden else module, name)


def working_device(module: Any) -> torch.device:
    """Where training will run; the module is put there if the strategy does no more than that."""
    strategy = module.trainer.strategy
    if isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        module.to(strategy.root_device)
    return module.device
