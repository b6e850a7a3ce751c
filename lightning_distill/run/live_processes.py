"""What a run of several processes does when one of them dies or hangs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ..error_message import leave, show
from .heartbeat import Heartbeat

# One for all stages of a run.
_heartbeat: Heartbeat | None = None


@contextmanager
def explained_by_others() -> Iterator[None]:
    """What ends the block is what ended the run first, also if another process met it."""
    try:
        yield
    except Exception as error:
        if _heartbeat is None:
            raise
        cause = _heartbeat.explain(error)
        if cause is error:
            raise
        raise cause from error
    except BaseException:
        if _heartbeat is not None:
            _heartbeat.stop()
        raise
    if _heartbeat is not None:
        _heartbeat.done()


class LiveProcesses(Callback):
    """Ends a run of several processes if one of them dies or hangs, and leaves the cause.

    Between the batches of a loop it takes `seconds` of no progress for hanging, or five times the
    longest step so far. The first batch, validation's end, checkpoints and all that lies between
    loops may take as long as they need, as long as each process answers.

    Args:
        seconds: by default 45, so that all has ended within a minute; `None` never looks.
        path: the file in which the cause is left.
    """

    def __init__(self, seconds: float | None, path: Path):
        self.seconds, self.path = seconds, path

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Start, once the processes can talk to each other."""
        global _heartbeat
        if self.seconds is None or trainer.world_size == 1 or not _lasts(trainer.strategy):
            return
        if _heartbeat is None:
            rank, size = trainer.global_rank, trainer.world_size
            strategy: Any = trainer.strategy
            host = strategy.cluster_environment.main_address
            made = self._made(rank, size, (host, 0)) if rank == 0 else None
            port = strategy.broadcast(None if made is None else made.address[1])
            _heartbeat = made or self._made(rank, size, (host, port))
            _heartbeat.start()
        _heartbeat.pause()

    def _made(self, rank: int, size: int, address: tuple[str, int]) -> Heartbeat:
        assert self.seconds is not None
        return Heartbeat(rank, size, address, self.seconds, self._report)

    def _report(self, words: str, stacks: str) -> None:
        show(f"lightning-distill: error: {words}")
        if leave(f"{words}\n{stacks}", self.path) and stacks:
            show(f"(Where each process was stands in {self.path}.)")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Let a user's own stop end the processes as it does without this."""
        if _heartbeat is not None and isinstance(exception, KeyboardInterrupt):
            _heartbeat.stop()


def _lasts(strategy: Any) -> bool:
    """Whether the processes of a strategy last as long as the run, and not only for one fit."""
    return not str(getattr(strategy, "strategy_name", "")).endswith(("spawn", "fork", "notebook"))


def _calls(method: str) -> Any:
    def hook(self: LiveProcesses, *_: Any, **__: Any) -> None:
        if _heartbeat is not None:
            getattr(_heartbeat, method)()

    return hook


for _loop in ("train", "validation", "test", "predict"):
    setattr(LiveProcesses, f"on_{_loop}_batch_end", _calls("step"))
    setattr(LiveProcesses, f"on_{_loop}_batch_start", _calls("begin"))
    for _when in ("start", "epoch_start", "epoch_end", "end"):
        setattr(LiveProcesses, f"on_{_loop}_{_when}", _calls("pause"))
for _hook in ("on_before_backward", "on_after_backward", "on_before_optimizer_step"):
    setattr(LiveProcesses, _hook, _calls("advance"))
LiveProcesses.on_save_checkpoint = _calls("pause")  # type: ignore[method-assign]
