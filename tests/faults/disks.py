"""A disk is full, read-only or gone: one clear error, and what was whole stays whole."""

import os
import shutil
from functools import partial
from pathlib import Path

from faults.case import Case
from faults.compared import at, check_words, weights_in
from faults.job import command, JOB
from faults.moments import at_bytes, at_hook

TITLE = "Full, read-only and vanishing disks"


def cases() -> list[Case]:
    found = []
    for size in (0, 200, 5_000, 40_000, 100_000, 130_000):
        attempt = partial(_full, size=size)
        found.append(Case(f"no file beyond {size} bytes", attempt, size == 40_000))
    for n in (2, 5, 7):
        found.append(Case(f"no room after step {n}", partial(_full_later, n=n)))
    found.append(Case("the folder of the run is removed in training", _removed))
    found.append(Case("the run's folder is a file", _is_file))
    found.append(Case("nobody may write into the run's folder", _read_only))
    return found


def _full(folder: Path, size: int) -> None:
    _refused(command([*JOB, at(folder / "run")], partial(at_bytes, size, False)), folder)


def _full_later(folder: Path, n: int) -> None:
    fault = partial(at_hook, "on_train_batch_end", n, _no_more)
    _refused(command([*JOB, at(folder / "run")], fault), folder)
    # What was whole stays so: with room the run goes on to the end.
    ended = command([f"resume={folder}/run"])
    assert ended.code == 0, f"did not go on with room: {ended.said[-300:]}"


def _no_more(*_, **__) -> None:
    at_bytes(0, False)


def _refused(ended, folder: Path) -> None:
    assert ended.code is not None and ended.code > 0, f"it ended with {ended.code}"
    assert "Traceback" not in ended.said, f"a traceback: {ended.err[-300:]}"
    assert "error:" in ended.err, f"no error in words: {ended.err[-300:]}"
    for path in (folder / "run").rglob("*.ckpt"):
        assert weights_in(path), f"{path.name} is empty"


def _removed(folder: Path) -> None:
    fault = partial(at_hook, "on_train_batch_end", 3, partial(_remove, str(folder / "run")))
    ended = command([*JOB, at(folder / "run")], fault)
    if ended.code != 0:
        check_words(ended)
    else:
        assert (folder / "run" / "result.json").is_file()


def _remove(path: str, *_, **__) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _is_file(folder: Path) -> None:
    (folder / "run").write_text("not a folder")
    ended = command([*JOB, at(folder / "run")])
    assert ended.code and "Traceback" not in ended.said, ended.err[-300:]


def _read_only(folder: Path) -> None:
    if os.geteuid() == 0:
        # Root may write everywhere; a file system that does not let it is one of the kernel's.
        ended = command([*JOB, at(Path("/proc/faults/run"))])
    else:
        folder.chmod(0o500)
        ended = command([*JOB, at(folder / "run")])
        folder.chmod(0o700)
    assert ended.code and "Traceback" not in ended.said, ended.err[-300:]
