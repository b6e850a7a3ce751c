"""Tests over other processes, without starting Python and importing torch anew for each."""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch.multiprocessing as mp
from lightning.pytorch.utilities import rank_zero_only

# Not the package itself, which some tests take from a wheel.
PRELOADED = "torch torch.distributed hypothesis pytest lightning.pytorch torchmetrics hydra"
MODELS = "datasets transformers.models.auto.modeling_auto transformers.models.bert.modeling_bert"
multiprocessing.set_forkserver_preload(f"{PRELOADED} {MODELS} matplotlib.pyplot".split())


def in_two_processes(worker, arguments):
    """Call `worker(rank, *arguments)` for both ranks at once, forked from a process kept for it."""
    mp.start_processes(worker, arguments, nprocs=2, start_method="forkserver")


def forked(function, *arguments):
    """A process that calls it, to be started."""
    return multiprocessing.get_context("forkserver").Process(target=function, args=arguments)


def with_other_hashes(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module gives in a process that orders its sets in another way.

    That takes a new Python, which is kept for all who ask. It does not see what tests have set of
    the environment since.
    """
    return _of_other_hashes().submit(function, *arguments).result()


@cache
def _of_other_hashes() -> ProcessPoolExecutor:
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "2" if before == "1" else "1"
    try:
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        pool.submit(os.getpid).result()
    finally:
        os.environ.pop("PYTHONHASHSEED")
        if before is not None:
            os.environ["PYTHONHASHSEED"] = before
    return pool


def run_program(
    program: Path, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess:
    """As `subprocess.run([program, *arguments])` of a Python program, forked in the same way.

    Args:
        program: a file.
        arguments: its own.
        folder: where it runs.
        environment: all of its variables; what is imported already has seen those of the tests.
    """
    (done,) = _run_all(program, arguments, folder, [environment])
    return done


def run_on_two_ranks(
    program: Path, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> list[subprocess.CompletedProcess]:
    """The same for two processes that know of each other, as torchrun starts them."""
    both = {**environment, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    both |= {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both |= {"TORCHELASTIC_RUN_ID": f"tests-{both['MASTER_PORT']}"}
    ranks = [{**both, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    return _run_all(program, arguments, folder, ranks)


def _run_all(
    program: Path,
    arguments: Sequence[str],
    folder: Path,
    environments: Sequence[Mapping[str, str]],
) -> list[subprocess.CompletedProcess]:
    with tempfile.TemporaryDirectory() as scratch:
        processes, printed = [], []
        for i, environment in enumerate(environments):
            files = [os.path.join(scratch, f"{name}{i}") for name in ("out", "err")]
            own = str(program), arguments, str(folder), dict(environment), files
            processes.append(forked(_become, *own))
            printed.append([Path(file) for file in files])
        for process in processes:
            process.start()
        end = time.monotonic() + 300
        while any(process.is_alive() for process in processes) and time.monotonic() < end:
            time.sleep(0.05)
            if any(process.exitcode for process in processes):
                # The others may wait for it.
                end = min(end, time.monotonic() + 20)
        late = [process for process in processes if process.is_alive()]
        for process in late:
            process.kill()
            process.join()
        failed = any(process.exitcode for process in processes if process not in late)
        assert failed or not late, "It took more than five minutes."
        return [
            subprocess.CompletedProcess(
                [program, *arguments], process.exitcode, *(file.read_text() for file in files)
            )
            for process, files in zip(processes, printed, strict=True)
        ]


def started(
    program: Path, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> multiprocessing.process.BaseProcess:
    """The same, which goes on; what it prints is not kept."""
    unread = [os.devnull, os.devnull]
    process = forked(_become, str(program), arguments, str(folder), dict(environment), unread)
    process.start()
    return process


def _become(program, arguments, folder, environment, files):
    for descriptor, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # Lightning reads it when it is imported, which was before.
    rank_zero_only.rank = int(environment.get("RANK", 0))
    sys.argv = [program, *arguments]
    sys.path[:0] = [os.path.dirname(program), *environment["PYTHONPATH"].split(os.pathsep)]
    try:
        runpy.run_path(program, run_name="__main__")
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def free_port():
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
