"""Processes that train together tell each other that they live; one that hangs ends the run."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from ..error_message import message_of

CAUSE = "cause"
# A step may take so many times the longest one so far.
SLACK = 5


class OtherProcessFailed(ValueError):
    """Another process of the run has failed, and this one because of it."""


class Heartbeat:
    """A thread in each process that says once a second how far the process is, and looks at others.

    It tells two kinds of hanging apart. A process that is silent is stopped, or holds Python's
    lock. A process that comes no further is looked for only between batches (`step`), and only
    found when none of them comes further; other phases (`pause`) may take as long as they need.
    Time is counted in beats, so that a host that sleeps is not taken for a process that hangs.

    Args:
        rank: of this process.
        size: how many there are.
        address: host and port of the store; the port of the first process is 0, for any.
        seconds: how long a process may be silent, or a step may take beyond those before it.
        report: called by one process with what happened, and with where each process was.
        interval: between two beats, in seconds.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        address: tuple[str, int],
        seconds: float,
        report: Callable[[str, str], None],
        interval: float = 1.0,
    ):
        self.rank, self.size, self.address = rank, size, address
        self.report, self.interval = report, interval
        self.patience = max(round(seconds / interval), 3)
        self._seconds = seconds
        self._main = threading.get_ident()
        # Between steps; beats since it came further; the most that took; how often it came further.
        self._in_steps, self._idle, self._slowest, self._place = False, 0, 0, 0
        self._beat = 0
        self._seen: dict[int, dict[str, Any]] = {}
        self._silent = [0] * size
        self._cause: list[Any] | None = None
        # Beats since the store has answered, and since it was clear that another has failed.
        self._waited, self._failing = 0, 0
        self._lost = self._explaining = self._ending = False
        self._stopped = threading.Event()
        self._store = self._connect()
        if rank == 0:
            self.address = (address[0], self._store.port)
            for other in range(size):
                self._store.set(str(other), "{}")

    def start(self) -> None:
        """Begin, when all processes know the address."""
        self._publish()
        for target in (self._run, self._count):
            threading.Thread(target=target, daemon=True, name="heartbeat").start()

    def begin(self) -> None:
        """A batch begins, after a phase of any length or the batch before."""
        self._advance(self._in_steps)

    def advance(self) -> None:
        """The main thread has come further within a batch."""
        self._advance(True)

    def step(self) -> None:
        """A batch has ended: from now on what takes too long is taken for hanging."""
        self._advance(True)
        self._in_steps = True

    def pause(self) -> None:
        """What follows may take long, also where others wait for it."""
        self._advance(False)
        self._in_steps = False

    def _advance(self, counts: bool) -> None:
        if counts:
            self._slowest = max(self._slowest, self._idle)
        self._idle, self._place = 0, self._place + 1

    def done(self) -> None:
        """This process needs the others no more, nor they it."""
        self._stopped.set()
        with suppress(RuntimeError):
            store = self._connect(1.0)
            self._publish(store, done=True)
            # The store ends with the first process, and the others look once per beat.
            for _ in range(20):
                if self.rank or all(self._read(r, store).get("done") for r in range(self.size)):
                    break
                time.sleep(self.interval / 10)

    def stop(self) -> None:
        """Look no further; the user has stopped the run."""
        self._stopped.set()

    def explain(self, error: Exception) -> Exception:
        """What ended this process: the error, or what another met if the error follows from that.

        The others are told of it.
        """
        self._explaining = True
        try:
            if type(error) is RuntimeError or isinstance(error, torch.distributed.DistError):
                for _ in range(30):
                    self._leave_the_end_to_the_thread()
                    found = self._failed_before()
                    if found is not None:
                        return OtherProcessFailed(found)
                    time.sleep(0.1)
            self._leave_the_end_to_the_thread()
            with suppress(RuntimeError):
                said = json.dumps([self.rank, message_of(error)])
                self._connect(1.0).compare_set(CAUSE, "", said)
                if self.rank == 0:
                    # The store ends with this process, and the others read it once per beat.
                    time.sleep(2.5 * self.interval)
            return error
        finally:
            self._stopped.set()

    def _leave_the_end_to_the_thread(self) -> None:
        while self._ending:
            time.sleep(1)

    def _failed_before(self) -> str | None:
        cause = self._cause
        if cause is None and not self._lost and not self._has_ended(0):
            with suppress(RuntimeError):
                cause = self._read_cause(self._connect(1.0))
        if cause is not None and cause[0] != self.rank:
            of = f"Process {cause[0]} of {self.size} has failed: " if cause[0] >= 0 else ""
            return f"{of}{cause[1]}"
        ended = [r for r in range(self.size) if self._has_ended(r)]
        ended = [r for r in ended if not self._seen[r].get("done")]
        return self._words_of_end(ended[0]) if ended else None

    # The threads.

    def _run(self) -> None:
        try:
            while not self._stopped.wait(self.interval):
                self._beat += 1
                self._look()
                self._waited = 0
        except RuntimeError:
            self._lost = True

    def _count(self) -> None:
        """Count beats, also while the store does not answer."""
        while not self._stopped.wait(self.interval):
            self._idle += 1
            self._waited += 1
            if self._lost and self._seen.get(0, {}).get("done"):
                return
            if self._lost and self._has_ended(0):
                self._wait_or_end(15, self._words_of_end(0))
            elif self._waited > self.patience:
                # It holds the store.
                self._end(self._words_of_silence(0), (0,))

    def _look(self) -> None:
        self._publish()
        self._cause = self._read_cause(self._store)
        if self._cause is not None:
            # Who has failed says so by itself; what hangs cannot.
            self._wait_or_end(15 if self._cause[0] >= 0 else 0)
            return
        living = []
        for other in range(self.size):
            found = self._read(other)
            same = found == self._seen.get(other)
            self._silent[other] = self._silent[other] + 1 if same else 0
            self._seen[other] = found
            if found.get("done"):
                continue
            if self._has_ended(other) and not self._read(other).get("done"):
                # The main thread meets it, unless it waits for nobody.
                self._wait_or_end(3, self._words_of_end(other), (other,))
                return
            if self._silent[other] >= self.patience:
                self._end(self._words_of_silence(other), (other,))
            living.append(other)
        if living and all(self._seen[other].get("over") for other in living):
            self._end(self._words_of_hanging(living), ())

    def _publish(self, store: Any = None, done: bool = False) -> None:
        over = self._in_steps and self._idle > max(self.patience, SLACK * self._slowest)
        state: dict[str, Any] = {"beat": self._beat, "place": self._place, "done": done}
        state |= {"over": over, "host": socket.gethostname(), "pid": os.getpid()}
        if over:
            stack = traceback.extract_stack(sys._current_frames()[self._main])
            own = [f for f in stack if not _is_of_torch(f.filename)] or stack
            state["at"] = f"{own[-1].filename}:{own[-1].lineno} ({own[-1].name})"
            state["waits"] = any("torch/distributed" in f.filename for f in stack)
            state["stack"] = "".join(traceback.format_list(stack))
        (self._store if store is None else store).set(str(self.rank), json.dumps(state))

    def _read(self, rank: int, store: Any = None) -> dict[str, Any]:
        return dict(json.loads((store or self._store).get(str(rank))))

    @staticmethod
    def _read_cause(store: Any) -> list[Any] | None:
        return list(json.loads(store.get(CAUSE))) if store.check([CAUSE]) else None

    def _connect(self, seconds: float = 10.0) -> Any:
        listens = self.rank == 0 and self.address[1] == 0
        host, port = self.address
        wait = timedelta(seconds=seconds)
        return torch.distributed.TCPStore(host, port, None, listens, wait, wait_for_workers=False)

    def _has_ended(self, rank: int) -> bool:
        """Whether a process of this host is there no more; of other hosts nobody here can tell."""
        found = self._seen.get(rank, {})
        if rank == self.rank or found.get("host") != socket.gethostname():
            return False
        pid = found["pid"]
        try:
            # That of a child stays until it is asked how it ended; this leaves the answer there.
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, pid, options) is not None
        except ChildProcessError:
            pass
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    # The end.

    def _wait_or_end(self, beats: int, words: str = "", culprits: tuple[int, ...] = ()) -> None:
        self._failing += 1
        if self._failing > beats and not self._explaining:
            self._end(words, culprits)

    def _end(self, words: str, culprits: tuple[int, ...]) -> None:
        """End this process, and those of this host that cannot end themselves."""
        if self._stopped.is_set():
            return
        self._ending = True
        said = json.dumps([-1, words])
        is_first = bool(words)
        with suppress(RuntimeError):
            if is_first and 0 not in culprits and not self._lost:
                is_first = self._store.compare_set(CAUSE, "", said).decode() == said
        if is_first:
            stacks = {r: s["stack"] for r, s in self._seen.items() if "stack" in s}
            self.report(words, _listed(stacks))
        for child in multiprocessing.active_children():
            child.kill()
        for rank in culprits:
            found = self._seen.get(rank, {})
            if found.get("host") == socket.gethostname() and not self._has_ended(rank):
                with suppress(OSError):
                    os.kill(found["pid"], signal.SIGKILL)
        if self.rank == 0:
            # The others read what happened in the store.
            time.sleep(3 * self.interval)
        os._exit(1)

    def _words_of_silence(self, rank: int) -> str:
        return (
            f"Process {rank} of {self.size}{self._named(rank)} hangs: it has not answered for "
            f"{self._seconds:g} seconds. It was stopped, or is in a call that does not come back. "
            f"{self._advice()}"
        )

    def _words_of_end(self, rank: int) -> str:
        return (
            f"Process {rank} of {self.size}{self._named(rank)} has ended without a word: it was "
            "killed, as by a system whose memory is full, or left by os._exit. "
            "What it printed last and the system's log may say why."
        )

    def _words_of_hanging(self, living: list[int]) -> str:
        states = {rank: self._seen[rank] for rank in living}
        least = min(state["place"] for state in states.values())
        behind = [r for r, state in states.items() if state["place"] == least]
        behind = [r for r in behind if not states[r]["waits"]] or behind
        at = [f"process {r} at {states[r]['at']}" for r in [*behind, *({*living} - {*behind})]]
        who = f"Process {behind[0]} of {self.size}{self._named(behind[0])} hangs"
        if len(behind) == self.size:
            who = f"All {self.size} processes hang"
        return (
            f"{who}: no batch has ended for {self._seconds:g} seconds or more ({'; '.join(at)}). "
            f"{self._advice()}"
        )

    def _named(self, rank: int) -> str:
        found = self._seen.get(rank, {})
        return f" (pid {found['pid']} on {found['host']})" if "pid" in found else ""

    @staticmethod
    def _advice() -> str:
        return "If it only needs more time, set hang_seconds=SECONDS, or null to wait for ever."


def _is_of_torch(path: str) -> bool:
    return any(name in Path(path).parts for name in ("torch", "lightning", "lightning_fabric"))


def _listed(stacks: Mapping[int, str]) -> str:
    return "".join(f"Process {rank} was at\n{stack}" for rank, stack in sorted(stacks.items()))
