"""The learning rate and the epochs of a run, where nobody has set them."""

from omegaconf import DictConfig
from torch import nn

from ..training.usual_training import usual_training
from .directory import settle
from .stage import say


def settle_training(cfg: DictConfig, student: nn.Module, write: bool = True) -> None:
    """Set `optimizer.lr` and `trainer.max_epochs` where they are null, as suits the student.

    They are written into the run's configuration, so that a resumed run goes on with the same.

    Args:
        cfg: the run's configuration, changed in place.
        student: as it was made, before its first step.
        write: false for a configuration that is only tried.
    """
    usual, found = usual_training(student), {}
    if "lr" in cfg.optimizer and cfg.optimizer.lr is None:
        found["optimizer.lr"] = usual.learning_rate
    if cfg.trainer.get("max_epochs") is None:
        # Steps that somebody counted are not cut short.
        limited = cfg.trainer.get("max_steps", -1) not in (-1, None)
        found["trainer.max_epochs"] = -1 if limited else usual.epochs
    settle(cfg, found, write)
    if write and found:
        values = " ".join(f"{name}={value}" for name, value in found.items())
        say("Training", f"{values}, because {usual.reason}")
