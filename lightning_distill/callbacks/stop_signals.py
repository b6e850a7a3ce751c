"""A stop that waits for the end of a step, so that the run can be saved."""

import logging
import signal
import threading
from types import FrameType
from typing import Any

import lightning as L
import torch

log = logging.getLogger("lightning_distill")

# Ctrl-C, and what clusters and `kill` send.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Catches the signals that end a run, for as long as it trains.

    The first is only noted. The second ends the run at once, as a signal does without this.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}
        # What all processes say together, on its way.
        self._sum: torch.Tensor | None = None
        self._work: Any = None

    def catch(self) -> None:
        """Begin; nothing happens outside of the main thread, which gets the signals."""
        self.asked, self._sum, self._work = False, None, None
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def release(self) -> None:
        """Give the signals back to who had them."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
        self._before = {}

    def agreed(self, trainer: L.Trainer) -> bool:
        """Whether to stop after this step; every process gets the same answer.

        To be called once after each step, by all. Nobody waits: what one process was told, all know
        after the next step.
        """
        if trainer.world_size == 1:
            return self.asked
        stop = False
        if self._work is not None and self._sum is not None:
            self._work.wait()
            stop = bool(self._sum.item())
        self._sum = torch.tensor(int(self.asked), device=trainer.strategy.root_device)
        self._work = torch.distributed.all_reduce(self._sum, async_op=True)
        return stop

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        log.info("Stopping after this step, with a checkpoint. Once more stops at once.")
