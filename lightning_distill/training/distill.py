"""Distillation in one call, for use in Python."""

import logging
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader
from torchmetrics import Metric

from ..callbacks import FiniteLoss, LastValidation
from ..criteria import FusedLinearDivergence, HardLabel, SoftTarget
from ..log_lines import saying
from ..metrics.traits import best_mode
from ..models.head import linear_head
from ..objective.objective import Objective
from ..objective.term import Term
from ..sealed import check_sealed
from ..tasks import Task, task_named, task_of_model
from .module import DistillationModule
from .scheduling import Scheduling
from .usual_training import usual_training

log = logging.getLogger("lightning_distill")


def distill(
    student: nn.Module,
    teacher: nn.Module | None,
    data: Any,
    objective: Objective | Mapping[str, nn.Module] | None = None,
    trainer: L.Trainer | None = None,
    metrics: Mapping[str, Metric] | Metric | None = None,
    optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
    scheduler: Callable[..., Any] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    task: Task | str | None = None,
) -> nn.Module:
    """Train `student` to match `teacher`; returns it with the best weights, in eval mode.

    Args:
        student: trained in place.
        teacher: frozen in place; never changed. `None` if the objective reads none.
        data: a LightningDataModule, a train DataLoader, or a pair of train and validation
            DataLoaders. Batches are dicts such as Hugging Face collators make, with `labels`,
            objects with such attributes, pairs (inputs, labels), or tuples in the order of the
            forward's arguments.
        objective: an [`Objective`][], or its terms by name. By default cross-entropy on the
            labels, and soft targets at temperature 2. For two causal language models of
            transformers both at temperature 1, by [`FusedLinearDivergence`][], which makes no
            logits; `labels` holds the token that follows each position, or -100.
        trainer: any Lightning trainer; by default 12 epochs for a student with fresh weights and 4
            for one with trained weights, on what hardware there is.
        metrics: torchmetrics by name, computed on the validation rows as `val/NAME`.
        optimizer: as for [`DistillationModule`][]; by default AdamW, at 1e-3 for fresh weights,
            5e-5 for trained ones and 2e-4 for adapters.
        scheduler: as for [`DistillationModule`][].
        monitor: what chooses the best weights; by default what a `ModelCheckpoint` of the trainer
            monitors, else `val/` and the first metric, else `val/loss`. Without validation rows the
            last weights are returned.
        mode: `max` or `min`; by default what the monitored metric says of itself.
        task: what labels mean; by default what the first batch shows, see
            [`infer_task`][lightning_distill.tasks.infer_task].

    Raises:
        ValueError: before the first step, if an argument is none of these, if models, data and
            objective do not fit, or the trainer or the objective was used before.
    """
    _check_factories(optimizer, scheduler)
    if trainer is not None and not isinstance(trainer, L.Trainer):
        raise ValueError(
            f"`trainer` must be a lightning.Trainer, got {trainer!r}; for so many epochs "
            "lightning.Trainer(max_epochs=...)."
        )
    if mode not in (None, "min", "max"):
        raise ValueError(f"`mode` must be min or max, got {mode!r}.")
    of_task = task_of_model(student) if task is None else task_named(task)
    objective = _objective(objective, student, teacher, of_task)
    metrics = _metrics(metrics)
    usual = usual_training(student)
    if optimizer is None:
        optimizer = partial(torch.optim.AdamW, lr=usual.constant_rate)
        log.info("AdamW at %g, because %s", usual.constant_rate, usual.reason)
    module = DistillationModule(student, teacher, objective, metrics, optimizer, scheduler, task)
    loaders = _loaders(data)
    with tempfile.TemporaryDirectory() as scratch, saying(_is_no_tip, TIPS):
        if trainer is None:
            trainer = L.Trainer(max_epochs=usual.epochs, logger=False, default_root_dir=scratch)
        elif trainer.global_step > 0:
            raise ValueError(
                f"This trainer has run already ({trainer.global_step} steps) and would stop where "
                "it stopped then; make a new one."
            )
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        theirs = list(callbacks)
        best = None
        validated = isinstance(data, L.LightningDataModule) or "val_dataloaders" in loaders
        if monitor is not None and not validated:
            raise ValueError(
                f"`monitor` is {monitor!r}, but there are no validation rows to see it on; give "
                "`data` as a pair (train DataLoader, validation DataLoader)."
            )
        if validated:
            best = _monitored_already(callbacks) if monitor is None else None
            if best is None:
                monitor = monitor or (f"val/{next(iter(metrics))}" if metrics else "val/loss")
                _check_monitor(monitor, metrics, objective)
                mode = mode or _mode(metrics, monitor)
                best = _best_checkpoint(callbacks, monitor, mode, Path(scratch))
            module.scheduler = _watching(scheduler, str(best.monitor), best.mode)
        if not any(isinstance(c, FiniteLoss) for c in callbacks):
            callbacks.append(FiniteLoss())
        callbacks.append(LastValidation())
        try:
            fit(trainer, module, **loaders)
            if trainer.interrupted:
                log.warning("stopped by the user: the best weights so far are returned")
            if best is not None and best.best_model_path:
                check_sealed(Path(best.best_model_path))
                state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
                module.load_state_dict(state["state_dict"])
            # Every rank reads the file before the first one to finish removes it.
            trainer.strategy.barrier()
        finally:
            # The trainer is the caller's, and the folder of ours is gone.
            trainer.callbacks[:] = theirs  # type: ignore[attr-defined]
    return module.student.eval()


def fit(trainer: L.Trainer, module: L.LightningModule, **options: Any) -> None:
    """`trainer.fit`, but a run that the user stops returns, with `trainer.interrupted` set."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, **options)
    except SystemExit:
        # Lightning ends the whole process, and ignores further signals.
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, handler)


# The logger that Lightning's tips come from.
TIPS = "lightning.pytorch.utilities.rank_zero"


def _is_no_tip(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning does not advertise another package."""
    return "Tip: For seamless cloud" not in record.getMessage()


def _loaders(data: Any) -> dict[str, Any]:
    if isinstance(data, L.LightningDataModule):
        return {"datamodule": data}
    loaders = list(data) if isinstance(data, tuple | list) else [data]
    wrong = [loader for loader in loaders if not _gives_batches(loader)]
    if len(loaders) not in (1, 2) or wrong:
        got = type(wrong[0]).__name__ if wrong else f"{len(loaders)} entries"
        raise ValueError(
            "`data` must be a LightningDataModule, a train DataLoader, or a pair of train and "
            f"validation DataLoaders, got {got}{' in it' if wrong and loaders != [data] else ''}. "
            f"{_way_out(wrong[0] if wrong else loaders)}"
        )
    return dict(zip(("train_dataloaders", "val_dataloaders"), loaders, strict=False))


def _gives_batches(loader: Any) -> bool:
    """Whether this is a loader, which gives the same batches in every epoch.

    A batch (a mapping, a tensor, a pair) can be iterated over too, and so can a data set or a
    table, whose rows are no batches; a generator is empty after one epoch.
    """
    if isinstance(loader, DataLoader):
        return True
    is_batch = isinstance(loader, Mapping | torch.Tensor | str | tuple | list)
    if is_batch or not isinstance(loader, Iterable) or hasattr(loader, "__getitem__"):
        return False
    return not isinstance(loader, Iterator)


def _way_out(wrong: Any) -> str:
    if isinstance(wrong, Iterator):
        return (
            "It can be read only once, and every epoch reads anew: give a DataLoader, or an object "
            "whose __iter__ begins again."
        )
    if hasattr(wrong, "__getitem__") and not isinstance(wrong, Mapping | list | tuple):
        return (
            "It has rows and no batches: torch.utils.data.DataLoader(data, batch_size=32, "
            "shuffle=True, collate_fn=...)."
        )
    return "Batches in a list: torch.utils.data.DataLoader(batches, batch_size=None)."


def _objective(
    objective: Any, student: nn.Module, teacher: nn.Module | None, task: Task
) -> Objective:
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, Mapping):
        return Objective(task.terms(objective))
    if objective is not None:
        name = type(objective).__name__
        raise ValueError(
            "`objective` must be an Objective or a mapping from names to terms, got a "
            f'{name}. Wrap a criterion: {{"mine": Term({name}(...), {{"student": "student.logits", '
            '"teacher": "teacher.logits"})}.'
        )
    heads = linear_head(student), linear_head(teacher)
    if None not in heads:
        fused = {
            "student": f"student.layer_input:{heads[0]}",
            "teacher": f"teacher.layer_input:{heads[1]}",
            "student_head": f"student.head:{heads[0]}",
            "teacher_head": f"teacher.head:{heads[1]}",
            "labels": "batch.labels",
        }
        criterion = FusedLinearDivergence(label_weight=1.0)
        return Objective({"fused_linear_divergence": Term(criterion, fused)})
    inputs = {"student": "student.logits", "teacher": "teacher.logits"}
    usual = {
        "hard_label": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"}),
        "soft_target": Term(SoftTarget(temperature=2.0), inputs),
    }
    return Objective(task.terms(usual))


def _metrics(metrics: Any) -> Mapping[str, Metric] | None:
    if isinstance(metrics, Metric):
        return {type(metrics).__name__.lower(): metrics}
    wrong = metrics
    if isinstance(metrics, Mapping):
        others = [m for m in metrics.values() if not isinstance(m, Metric | None)]
        wrong = others[0] if others else None
    if wrong is not None:
        raise ValueError(
            "`metrics` must be torchmetrics objects by name, as in {'accuracy': "
            f"MulticlassAccuracy(num_classes=2)}}, got {wrong!r}."
        )
    return metrics


def _check_factories(optimizer: Any, scheduler: Any) -> None:
    for name, factory, example in (
        ("optimizer", optimizer, "functools.partial(torch.optim.AdamW, lr=1e-4)"),
        (
            "scheduler",
            scheduler,
            "functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1)",
        ),
    ):
        if factory is not None and not callable(factory):
            raise ValueError(
                f"`{name}` must be a function that makes one, as in {example}, got "
                f"{type(factory).__name__ if not isinstance(factory, str) else repr(factory)}."
            )


def _check_monitor(
    monitor: str, metrics: Mapping[str, Metric] | None, objective: Objective
) -> None:
    names = [f"val/{name}" for name in [*(metrics or {}), "loss", *objective.terms]]
    if monitor not in names:
        raise ValueError(f"`monitor` must be one of {', '.join(names)}, got {monitor!r}.")


def _mode(metrics: Mapping[str, Metric] | None, monitor: str) -> str:
    metric = (metrics or {}).get(monitor.removeprefix("val/"))
    return best_mode(metric, "min")


def _monitored_already(callbacks: list[L.Callback]) -> ModelCheckpoint | None:
    """The caller's own checkpoint that chooses the best, if there is one."""
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
            return callback
    return None


def _best_checkpoint(
    callbacks: list[L.Callback], monitor: str, mode: str, scratch: Path
) -> ModelCheckpoint:
    for callback in callbacks:
        if (
            isinstance(callback, ModelCheckpoint)
            and callback.save_top_k != 0
            and (callback.monitor, callback.mode) == (monitor, mode)
        ):
            return callback
    # The one that Lightning adds by itself watches nothing, and has no folder.
    callbacks[:] = [
        c
        for c in callbacks
        if not (isinstance(c, ModelCheckpoint) and c.dirpath is None and c.filename is None)
        or c.monitor is not None
    ]
    callback = ModelCheckpoint(scratch / "checkpoints", monitor=monitor, mode=mode)
    callbacks.append(callback)
    return callback


def _watching(scheduler: Any, monitor: str, mode: str) -> Any:
    """The scheduler, which watches what chooses the weights if it watches a metric."""
    if getattr(scheduler, "func", scheduler) is not ReduceLROnPlateau:
        return scheduler
    return Scheduling(scheduler, {"monitor": monitor}, mode)
