"""A run of the command that is killed at a batch, as by a machine that fails."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processes import run_program

PROGRAM = "from lightning_distill.main import main\n\nmain()\n"
# At the n-th training batch that the process sees, over all its trainings.
STOP = """
import os
import lightning as L

SEEN = []


class Stop(L.Callback):
    def on_train_batch_end(self, *_):
        SEEN.append(1)
        if len(SEEN) == int(os.environ.get("STOP", "0")):
            os.kill(os.getpid(), 9)
"""
# Also of the run that nobody kills, for callbacks are a part of what is compared.
WITH_STOP = "+callbacks.stop._target_=stop.Stop"


def write_stop(folder: Path) -> None:
    """The files that `WITH_STOP` and `kill_at` need, in the folder where the command is typed."""
    (folder / "program.py").write_text(PROGRAM)
    (folder / "stop.py").write_text(STOP)


def kill_at(folder: Path, batch: int, *arguments: str) -> None:
    """The command in a process of its own, which kills itself at this batch."""
    done = _run(folder, batch, arguments)
    assert done.returncode == -9, done.stderr


def run_whole(folder: Path, *arguments: str) -> None:
    """The command in a process of its own, such as one that starts others."""
    done = _run(folder, 0, arguments)
    assert done.returncode == 0, done.stderr


def _run(folder: Path, batch: int, arguments: Sequence[str]) -> Any:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "STOP": str(batch), "COLUMNS": "150"}
    env["PYTHONPATH"] = str(Path(__file__).parents[1])
    return run_program(folder / "program.py", arguments, folder, env)
