"""A fit that was cut off and goes on ends with the weights of one that was not."""

import logging
from typing import Any

import lightning as L
import torch

from .one_shot import is_one_shot
from .random_state import random_state, set_random_state
from .sealed_checkpoints import seal_checkpoints

log = logging.getLogger("lightning_distill")

KEY = "exact_resuming"


class ExactResuming(L.Callback):
    """Keeps in each checkpoint what Lightning's lacks, and puts it back on resuming.

    That is the random state of every process, the place within the epoch, what was logged last
    (schedulers and early stopping read it) and whether the run was told to stop. Within an epoch
    the batches before that place are drawn again and thrown away, so that any loader that gives
    the same batches for the same random state goes on where it was. A loader with a `state_dict`
    is left to Lightning.

    A stream that was cut within an epoch goes on with the right rows, and not with the same random
    numbers: Lightning reads a batch ahead of it.

    A [`DistillationModule`][] brings this callback along. It is exact for checkpoints that are
    written at the end of an optimizer step, as [`LastCheckpoint`][] writes them.

    Lightning has no public way for the place of a loop: this file reads and sets its counters
    (`checkpoint["loops"]`, `fit_loop.epoch_loop.restarting`, `fit_loop.on_iteration_done`,
    `fit_loop._data_fetcher`, `fit_loop.epoch_loop._should_check_val_fx` and
    `_batches_that_stepped`), and `tests/callbacks/test_exact_resuming.py` fails if they change.
    """

    def __init__(self) -> None:
        # Of the moment at which the iterator over the training data of this epoch was made.
        self._at_iterator: dict[str, Any] | None = None
        self._loaded: dict[str, Any] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let checkpoints be written whole, and read only as they were written."""
        seal_checkpoints(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the iterator over the data; go to the place of the checkpoint on resuming."""
        found, self._loaded = self._loaded, None
        if found is None:
            self._at_iterator = random_state(trainer.strategy.root_device)
            # Made once already, at a random state that nobody knows any more.
            fetcher = getattr(trainer.fit_loop, "_data_fetcher", None)
            if fetcher is not None and not any(map(is_one_shot, fetcher.combined_loader.flattened)):
                iter(fetcher)
            return
        trainer.callback_metrics.update(found["logged"])
        trainer.should_stop = trainer.should_stop or found["should_stop"]
        loop = trainer.fit_loop
        if found["batches"]:
            self._at_iterator = found["at_iterator"]
            _count_step(trainer, found)
            self._skip(trainer, found)
        else:
            # The epoch is over: all that follows is as in a run that was not cut off.
            loop.on_iteration_done()
            loop.epoch_loop.restarting = False
            _step_plateaus(trainer, pl_module)
        if found["random"] is not None:
            set_random_state(found["random"], trainer.strategy.root_device)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember the random state of which the iterator is made."""
        if trainer.current_epoch > 0:
            self._at_iterator = random_state(trainer.strategy.root_device)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let Lightning treat an epoch that was resumed like any other."""
        # It would leave out the step of `ReduceLROnPlateau`.
        trainer.fit_loop.on_iteration_done()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the random states of all processes, and what was logged."""
        own = {
            "random": random_state(trainer.strategy.root_device),
            "at_iterator": self._at_iterator,
        }
        checkpoint[KEY] = {
            "processes": _of_all(own),
            "logged": {n: v.detach().cpu().clone() for n, v in trainer.callback_metrics.items()},
            "should_stop": bool(trainer.should_stop),
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Read the place of the checkpoint; an epoch that is over counts as such."""
        if trainer.state.fn != "fit" or "loops" not in checkpoint:
            return
        loop = checkpoint["loops"]["fit_loop"]
        epochs = loop["epoch_progress"]
        for count in epochs.values():
            if count["processed"] == count["ready"]:
                count["completed"] = count["processed"]
        over = epochs["current"]["completed"] == epochs["current"]["ready"]
        batches = 0 if over else loop["epoch_loop.batch_progress"]["current"]["ready"]
        progress = loop["epoch_loop.batch_progress"]
        last, total = progress["is_last_batch"], progress["total"]
        validated = total["completed"] == total["processed"]
        kept = checkpoint.get(KEY)
        own = None if kept is None else _of_this_process(kept["processes"], trainer)
        self._loaded = {
            "epoch": epochs["current"]["completed"],
            "batches": batches,
            "last": last,
            "validated": validated,
            "loaders": loop["state_dict"].get("combined_loader") or [],
            "logged": {} if kept is None else kept["logged"],
            "should_stop": kept is not None and kept["should_stop"],
            "random": None if own is None else own["random"],
            "at_iterator": random_state(trainer.strategy.root_device)
            if own is None
            else own["at_iterator"],
        }

    def _skip(self, trainer: L.Trainer, found: dict[str, Any]) -> None:
        """Draw and drop the batches of this epoch that were trained on already."""
        if found["last"]:
            return
        batches, together = found["batches"], trainer.accumulate_grad_batches
        if batches % together:
            log.warning(
                "This checkpoint was written after %d of the %d batches of a step, and their "
                "gradients are not in it: the run goes on, but not exactly as if it had not been "
                "cut off. lightning_distill.callbacks.LastCheckpoint writes at the ends of steps.",
                batches % together,
                together,
            )
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        loaders = fetcher.combined_loader.flattened
        if any(map(is_one_shot, loaders)):
            log.warning("This data can be read only once, so the run goes on with what is left.")
            return
        for loader in loaders:
            _set_epoch(loader, found["epoch"])
        stateful = [one for one in loaders if hasattr(one, "load_state_dict")]
        for loader, state in zip(stateful, found["loaders"], strict=False):
            loader.load_state_dict(state)
        set_random_state(found["at_iterator"], trainer.strategy.root_device)
        iter(fetcher)
        if found["loaders"]:
            return
        for _ in range(batches):
            next(fetcher)
        # Lightning adds them itself, for loaders that it takes to go on by themselves.
        fetcher.fetched -= batches


def _count_step(trainer: L.Trainer, found: dict[str, Any]) -> None:
    """Count the step of a checkpoint within an epoch, for loggers, where Lightning does not.

    It does so where the checkpoint was written before a validation, and where a validation is due
    that it leaves out because it is done.
    """
    loop = trainer.fit_loop.epoch_loop
    ends_a_step = found["batches"] % trainer.accumulate_grad_batches == 0
    if not found["validated"] or found["last"] or not ends_a_step:
        return
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    if not loop._should_check_val_fx(fetcher):
        loop._batches_that_stepped += 1


def _set_epoch(loader: Any, epoch: int) -> None:
    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers: list[Any] = [getattr(one, "sampler", None) for one in (loader, batch_sampler)]
    for sampler in samplers:
        if callable(getattr(sampler, "set_epoch", None)):
            sampler.set_epoch(epoch)


def _step_plateaus(trainer: L.Trainer, module: L.LightningModule) -> None:
    """What Lightning does after the end of an epoch, when its checkpoint is written already."""
    for config in trainer.lr_scheduler_configs:
        due = config.interval == "epoch" and trainer.current_epoch % config.frequency == 0
        value = trainer.callback_metrics.get(str(config.monitor))
        if config.reduce_on_plateau and due and value is not None:
            module.lr_scheduler_step(config.scheduler, value)


def _of_all(own: dict[str, Any]) -> list[dict[str, Any]]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [own]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, own)
    return found


def _of_this_process(states: list[dict[str, Any]], trainer: L.Trainer) -> dict[str, Any] | None:
    if len(states) != trainer.world_size:
        log.warning(
            "This checkpoint was written by %d processes, and %d go on: their random numbers and "
            "batches are others than in a run that was not cut off.",
            len(states),
            trainer.world_size,
        )
        return None
    return states[trainer.global_rank]
