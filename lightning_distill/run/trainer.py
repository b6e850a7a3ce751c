"""Trainer, module and optimizer of a run."""

import inspect
from collections.abc import Mapping, Sequence, Sized
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import lightning as L
from hydra.errors import InstantiationException
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric

from ..callbacks import LastCheckpoint
from ..objective.objective import Objective
from ..training.module import DistillationModule
from ..training.scheduling import Scheduling
from .call import group
from .live_processes import LiveProcesses
from .objective import build_objective
from .targets import find_target, instantiate
from .task import task_in


def build_module(
    cfg: DictConfig,
    student: nn.Module,
    teacher: nn.Module | None,
    objective: Objective,
    metrics: Mapping[str, Metric],
) -> DistillationModule:
    """The module that `cfg.module` names, or a plain one."""
    # A run that is older than this key goes on as it was.
    node = cfg.get("module")
    make = DistillationModule if node is None else instantiate(node, _convert_="object")
    module = make(student, teacher, objective, metrics, **optimization(cfg))
    if isinstance(module, DistillationModule):
        # Not by an argument, which classes of a user's own may not pass on.
        module.task = module.task or task_in(cfg)
    else:
        raise ValueError(
            f"`module` must make a DistillationModule, got a {type(module).__name__} from "
            f"{node.get('_target_')}."
        )
    return module


def module_learns_of_teacher(cfg: DictConfig) -> bool:
    """Whether the module that `cfg.module` names looks at the teacher where no term does."""
    made = _module_class(cfg)
    return made is not None and made.learns_of_teacher


def module_needs_live_teacher(cfg: DictConfig) -> bool:
    """Whether the module that `cfg.module` names asks a teacher what no cache can hold."""
    made = _module_class(cfg)
    return made is not None and made.needs_live_teacher


def _module_class(cfg: DictConfig) -> type[DistillationModule] | None:
    target = OmegaConf.select(cfg, "module._target_")
    made = None if target is None else find_target(str(target), "module._target_")
    return made if isinstance(made, type) and issubclass(made, DistillationModule) else None


def learns_of_teacher(cfg: DictConfig) -> bool:
    """Whether any term or the module looks at the teacher."""
    return module_learns_of_teacher(cfg) or bool(build_objective(cfg).sources("teacher"))


def build_callbacks(cfg: DictConfig) -> list[L.Callback]:
    """The callbacks that `cfg.callbacks` names."""
    return [instantiate(node) for node in group(cfg, "callbacks").values() if node is not None]


def build_trainer(cfg: DictConfig, directory: Path, **changes: Any) -> L.Trainer:
    """A trainer that writes into `directory`, with the configured callbacks and loggers."""
    cfg = cfg.copy()
    cause = Path(str(cfg.output_dir)) / ("resume_error.txt" if cfg.get("resume") else "error.txt")
    cfg.output_dir = str(directory)
    callbacks = build_callbacks(cfg)
    # What a run goes on from holds the states of all others, and so comes behind them.
    callbacks.sort(key=lambda callback: isinstance(callback, LastCheckpoint))
    loggers = [instantiate(node) for node in group(cfg, "logger").values() if node is not None]
    # Without these Lightning would put its own in the place of what was switched off.
    implied = {
        "enable_progress_bar": any(isinstance(c, ProgressBar) for c in callbacks),
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
    }
    options = {"callbacks": callbacks, "logger": loggers, **implied, **changes}
    trainer = _instantiated(cfg, options)
    # A run that is older than this key waits as one that leaves it at its default.
    trainer.callbacks.append(LiveProcesses(cfg.get("hang_seconds", 45), cause))  # type: ignore[attr-defined]
    return trainer


def _instantiated(cfg: DictConfig, options: dict[str, Any]) -> L.Trainer:
    if cfg.trainer.get("max_epochs") is None:
        # Nothing is trained: a student's epochs are settled before. Lightning would warn.
        options = {"max_epochs": -1, **options}
    try:
        return instantiate(cfg.trainer, **options)
    except InstantiationException as error:
        if not isinstance(error.__cause__, MisconfigurationException):
            raise
        where = [f"trainer.{name}={cfg.trainer.get(name)}" for name in ("accelerator", "devices")]
        raise ValueError(
            f"{' '.join(where)} does not work here: {error.__cause__} "
            "trainer.accelerator=auto trainer.devices=1 takes what this machine has."
        ) from error


def check_training(cfg: DictConfig) -> None:
    """Refuse settings of a training that nothing is made of, or that what is made does not take.

    Raises:
        ValueError: naming the setting, and those that there are.
    """
    for name in ("callbacks", "logger"):
        for key, node in group(cfg, name).items():
            _check_is_made(f"{name}.{key}", node, f"{name}=[...,{key}]")
    for name in ("balance", "sparsity", "module"):
        _check_is_made(name, cfg.get(name), f"{name}=NAME")
    _check_taken("trainer", cfg.trainer)
    process_count(cfg)
    for name in ("optimizer", "scheduler"):
        if cfg.get(name) is not None:
            _check_taken(name, cfg[name], ("interval", "frequency", "monitor"))
    _check_is_function("optimizer", cfg.optimizer, Optimizer, "the parameters")
    if cfg.get("module") is not None:
        of = "student, teacher and objective"
        _check_is_function("module", cfg.module, DistillationModule, of)


def _check_is_function(name: str, node: Any, kind: type, of: str) -> None:
    """Refuse a node that would make its object before there is what it is made of."""
    made = find_target(node.get("_target_"), f"{name}._target_")
    if isinstance(made, type) and issubclass(made, kind) and not node.get("_partial_"):
        raise ValueError(
            f"`{name}` ({node.get('_target_')}) must be a function of {of}: add _partial_: true "
            "to its YAML."
        )


def _check_is_made(name: str, node: Any, choice: str) -> None:
    if node is not None and (not OmegaConf.is_dict(node) or "_target_" not in node):
        raise ValueError(
            f"{name} must say by `_target_` what is made, got {node!r}. Choose it for the run, as "
            f"in {choice}, so that its settings can be changed; or write "
            f"{name}._target_=module.Class beside them."
        )


def _check_taken(name: str, node: Any, more: Sequence[str] = ()) -> None:
    """Compare the settings of a node with the arguments of what it makes."""
    taken = inspect.signature(find_target(node.get("_target_"), f"{name}._target_")).parameters
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    for key in node:
        if not str(key).startswith("_") and key not in taken and key not in more:
            near = get_close_matches(str(key), [*taken], n=3)
            raise ValueError(
                f"{name}.{key} is no argument of {node.get('_target_')}, which takes "
                f"{', '.join(near or taken)}."
            )


def optimization(cfg: DictConfig) -> dict[str, Any]:
    """The factories of optimizer and scheduler, as arguments of the module."""
    scheduler = None if cfg.scheduler is None else _scheduling(cfg)
    # Lists of a configuration would lie in checkpoints, which are read without its classes.
    optimizer = instantiate(cfg.optimizer, _convert_="object")
    return {"optimizer": optimizer, "scheduler": scheduler}


def _scheduling(cfg: DictConfig) -> Scheduling:
    """The scheduler, apart from what Lightning is to be told of it."""
    node = cfg.scheduler.copy()
    settings = {
        name: node.pop(name) for name in ("interval", "frequency", "monitor") if name in node
    }
    make = instantiate(node, _convert_="object")
    if not callable(make):
        raise ValueError(
            f"`scheduler` ({node.get('_target_')}) must be a function of the optimizer: add "
            "_partial_: true to its YAML."
        )
    if getattr(make, "func", None) is ReduceLROnPlateau:
        settings.setdefault("monitor", cfg.monitor)
    own = settings.get("monitor") in (None, cfg.monitor)
    return Scheduling(make, settings, cfg.mode if own else "min")


def process_count(cfg: DictConfig) -> int:
    """How many processes train one model together."""
    trainer = _bare_trainer(cfg)
    return trainer.num_devices * trainer.num_nodes


def precision_of(cfg: DictConfig) -> str:
    """The precision of a training, as its trainer calls it."""
    return str(_bare_trainer(cfg).precision)


def _bare_trainer(cfg: DictConfig) -> L.Trainer:
    options = {"callbacks": [], "logger": False, "enable_checkpointing": False}
    return _instantiated(cfg, options | {"enable_progress_bar": False})


def check_validations(cfg: DictConfig, data: Any) -> None:
    """Refuse a validation after more batches than an epoch has: there would be none.

    Args:
        cfg: the configuration of a training.
        data: a data module that is set up.

    Raises:
        ValueError: naming both numbers, and what can be written.
    """
    settings, loader = cfg.trainer, data.train_dataloader()
    every = settings.get("val_check_interval")
    if not isinstance(every, int) or isinstance(every, bool) or not isinstance(loader, Sized):
        return
    counts_over_epochs = settings.get("check_val_every_n_epoch", 1) is None
    if counts_over_epochs or settings.get("limit_val_batches") == 0:
        return
    batches, limit = len(loader), settings.get("limit_train_batches")
    if limit is not None:
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    if every > batches:
        raise ValueError(
            f"trainer.val_check_interval is {every}, and an epoch has {batches} batches: there "
            f"would be no validation. Take at most {batches}, a share of an epoch such as 0.5, or "
            "count over epochs (trainer.check_val_every_n_epoch=null)."
        )
