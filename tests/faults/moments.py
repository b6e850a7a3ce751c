"""Faults that strike within a run, at a moment that is told exactly."""

import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import lightning as L


def kill(*_: Any, **__: Any) -> None:
    """As when the power goes."""
    os.kill(os.getpid(), signal.SIGKILL)


def at_hook(hook: str, number: int, strike: Callable[..., Any] = kill) -> None:
    """Let `strike` be called at the n-th call of one of Lightning's hooks, over all trainings.

    Args:
        hook: of a callback, such as `on_train_batch_start`.
        number: counted from 1; 0 is each of them.
        strike: called with what the hook is given.
    """
    count = 0

    def called(self, *arguments, **named):
        nonlocal count
        count += 1
        if number in (0, count):
            strike(*arguments, **named)

    one = type("Strike", (L.Callback,), {hook: called})()
    made = L.Trainer.__init__

    def make(self, *arguments, callbacks=None, **named):
        made(self, *arguments, callbacks=[one, *(callbacks or [])], **named)

    L.Trainer.__init__ = make


def at_file_operation(folder: str, number: int, strike: Callable[[], Any] = kill) -> None:
    """Strike just before the n-th operation that changes a file or folder within a folder."""
    count = 0

    def heard(event, arguments):
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            changes = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            path = arguments[0] if arguments else None
            changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        if changes and isinstance(path, str | os.PathLike) and _is_within(path, folder):
            count += 1
            if count == number:
                strike()

    sys.addaudithook(heard)


def _is_within(path: Any, folder: str) -> bool:
    return os.path.abspath(os.fspath(path)).startswith(folder)


def at_bytes(size: int, killed: bool = True) -> None:
    """Let no file grow beyond so many bytes: its process is killed, or told so."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if killed else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def after(seconds: float, strike: Callable[[], Any] = kill) -> None:
    """At a moment that the clock tells."""

    def wait() -> None:
        time.sleep(seconds)
        strike()

    threading.Thread(target=wait, daemon=True).start()


def some(seed: int, low: float, high: float) -> float:
    """A number that is the same each time."""
    return random.Random(seed).uniform(low, high)
