"""One of two processes dies, raises or hangs: both end within a minute, and say why."""

import os
import time
from functools import partial
from pathlib import Path

from faults.case import Case
from faults.compared import at
from faults.job import JOB, on_two_ranks
from faults.moments import at_hook, kill

TITLE = "One of two processes dies, raises, exits or hangs"
CAUSE = "a fault that was meant"


def cases() -> list[Case]:
    found = []
    for rank in (0, 1):
        for name, strike, hook, n in (
            ("is killed in training", _die, "on_train_batch_start", 2),
            ("is killed in validation", _die, "on_validation_batch_start", 3),
            ("raises in training", _raise, "on_train_batch_start", 2),
            ("raises in validation", _raise, "on_validation_batch_start", 3),
            ("exits in training", _exit, "on_train_batch_start", 2),
            ("hangs in training", _hang, "on_train_batch_start", 2),
        ):
            fault = partial(at_hook, hook, n, strike)
            said = CAUSE if strike is _raise else ""
            quick = (rank, strike) == (1, _raise) and "training" in name
            attempt = partial(_both_end, rank=rank, fault=fault, said=said)
            found.append(Case(f"rank {rank} {name}", attempt, quick))
    return found


def _both_end(folder: Path, rank: int, fault, said: str) -> None:
    ended = on_two_ranks([*JOB, at(folder / "run")], {rank: fault}, 90)
    assert ended.code is not None, f"a process still ran after {ended.seconds:.0f} s"
    assert ended.seconds < 75, f"it took {ended.seconds:.0f} s"
    assert ended.code != 0, "it ended as if all was well"
    if said:
        told = [p.read_text() for p in (folder / "run").glob("error*.txt")]
        assert any(said in text for text in told), f"error.txt does not hold the cause: {told}"[
            :300
        ]


def _die(*_, **__) -> None:
    kill()


def _raise(*_, **__) -> None:
    raise RuntimeError(CAUSE)


def _exit(*_, **__) -> None:
    os._exit(3)


def _hang(*_, **__) -> None:
    time.sleep(600)
