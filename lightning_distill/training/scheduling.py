"""When the learning rate changes: after steps, after epochs, or when a metric stands still."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR, ReduceLROnPlateau

UNKNOWN_END = (
    "goes over the whole run, and nobody knows how long that is: this data is a stream, or nothing "
    "ends the run. Set trainer.max_steps=N; for a teacher that is trained first, the batches of "
    "an epoch, as in +trainer.limit_train_batches=N"
)
# What a factory may be given, and what it then gets.
WHOLE_RUN = ("num_training_steps", "total_steps")


class Scheduling:
    """A scheduler's factory, and what Lightning is to be told of it.

    Args:
        make: as the `scheduler` of a [`DistillationModule`][].
        settings: of `interval` (`step` or `epoch`), `frequency` and `monitor` those that are known.
        mode: `min` or `max`, for a `ReduceLROnPlateau` that is told no mode of its own.

    Raises:
        ValueError: for another interval, or a frequency below 1.
    """

    def __init__(
        self, make: Callable[..., Any], settings: Mapping[str, Any], mode: str | None = None
    ):
        interval, frequency = settings.get("interval", "step"), settings.get("frequency", 1)
        if interval not in ("step", "epoch"):
            raise ValueError(f"`scheduler.interval` must be step or epoch, got {interval!r}.")
        if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
            raise ValueError(
                f"`scheduler.frequency` must be a whole number of at least 1, got {frequency!r}."
            )
        self.make, self.settings, self.mode = make, dict(settings), mode


def scheduler_config(
    make: Callable[..., Any] | Scheduling,
    optimizer: Any,
    watched: tuple[str, str],
    trainer: L.Trainer | None = None,
) -> dict[str, Any]:
    """Lightning's dictionary of a scheduler.

    What the factory returns is stepped after every optimizer step if the factory takes a number of
    steps (an argument that ends in `steps`), or makes a `OneCycleLR` or `CyclicLR`; otherwise after
    every epoch, as in Lightning. A factory that returns Lightning's dictionary says itself.

    Args:
        make: takes the optimizer, and the number of steps of the run as `num_training_steps` or
            `total_steps` if it has such an argument.
        optimizer: whose learning rate changes.
        watched: the monitored metric and its mode, for a `ReduceLROnPlateau` that names none.
        trainer: of the run, which knows its length; without one a hundred steps are supposed.

    Raises:
        ValueError: if the run's length is needed and unknown, or a metric that is watched is never
            measured, or is best where the scheduler takes it to be worst.
    """
    scheduling = make if isinstance(make, Scheduling) else Scheduling(make, {})
    mode = scheduling.mode or watched[1]
    steps = 100 if trainer is None else int(trainer.estimated_stepping_batches)
    made = _made(scheduling.make, optimizer, steps, mode)
    config = dict(made) if isinstance(made, Mapping) else {"scheduler": made}
    config |= scheduling.settings
    scheduler = config.get("scheduler")
    if not callable(getattr(scheduler, "step", None)):
        raise ValueError(
            "`scheduler` must make a scheduler of torch, or Lightning's dictionary with one as "
            f"'scheduler', got a {type(made).__name__}."
        )
    if isinstance(scheduler, ReduceLROnPlateau):
        return _plateau(config, scheduler, (watched[0], mode), trainer)
    by_step = isinstance(scheduler, OneCycleLR | CyclicLR) or any(
        name.endswith("steps") for name in inspect.signature(scheduling.make).parameters
    )
    return {"interval": "step" if by_step else "epoch", **config}


def _plateau(
    config: dict[str, Any],
    scheduler: ReduceLROnPlateau,
    watched: tuple[str, str],
    trainer: L.Trainer | None,
) -> dict[str, Any]:
    monitor = config.get("monitor") or watched[0]
    if monitor == watched[0] and scheduler.mode != watched[1]:
        better = "more" if watched[1] == "max" else "less"
        raise ValueError(
            f"ReduceLROnPlateau(mode={scheduler.mode!r}) would watch {monitor}, of which {better} "
            f"is better. Give it mode={watched[1]!r}, or another metric, as in "
            "scheduler.monitor=val/loss."
        )
    every: int | None = 1
    if trainer is not None:
        every = trainer.check_val_every_n_epoch
        if monitor.startswith("val/") and not trainer.enable_validation:
            raise ValueError(
                f"ReduceLROnPlateau watches {monitor}, but there are no validation rows to see it "
                "on. Give validation data, or let it watch train/loss (scheduler.monitor)."
            )
    # Where validation comes after so many batches, an epoch may end before the first.
    defaults = {"interval": "epoch", "frequency": every or 1, "strict": every is not None}
    return defaults | config | {"monitor": monitor}


def _made(make: Callable[..., Any], optimizer: Any, steps: int, mode: str) -> Any:
    bound = getattr(make, "keywords", {})
    parameters = inspect.signature(make).parameters
    wanted = [n for n in WHOLE_RUN if n in parameters and bound.get(n) is None]
    if steps < 0 and wanted:
        raise ValueError(
            f"The scheduler {UNKNOWN_END}, or let the learning rate be constant "
            "(scheduler=constant)."
        )
    warmup = bound.get("pct_start")
    if warmup and steps * warmup <= 1:
        # OneCycleLR divides by zero where its warm-up is one step, and starts at the end below.
        steps = int(1 / warmup) + 1
    if getattr(make, "func", make) is ReduceLROnPlateau and "mode" not in bound:
        return make(optimizer, mode=mode)
    return make(optimizer, **{name: steps for name in wanted[:1]})
