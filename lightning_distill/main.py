"""The `lightning-distill` command: compose a configuration and run one job.

Nothing here imports torch before a job runs, so that `--help` and completion stay quick.
"""

import os
import sys
from contextlib import contextmanager, suppress

if __name__ == "__main__":
    # `python -m` puts the folder where it is typed in front of all libraries. It may be gone.
    with suppress(FileNotFoundError):
        if sys.path[0] in ("", os.getcwd()):
            del sys.path[0]

import logging
import signal
import threading
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from .before_loading import check_before_loading
from .data_of_files import with_data
from .data_of_hub import with_hub_data
from .error_message import message_of, message_of_hydra, NOWHERE, report, show
from .overrides import quoted, readable_by_hydra
from .teacher_of_student import with_teacher

log = logging.getLogger("lightning_distill")

# Where Hydra's variable is 1 it raises its errors, instead of printing them in its own way; ours
# says that `main` has set it, and not the user.
FULL_ERROR, BY_MAIN = "HYDRA_FULL_ERROR", "LIGHTNING_DISTILL_SET_FULL_ERROR"


# What the members of a sweep that failed have said.
FAILED: list[str] = []


class MemberFailed(RuntimeError):
    """One run of a sweep has failed, and said why."""


def run_dir(resume: str | None, job: str, *, _root_: Any) -> str:
    """One directory per run, the same in each of its processes; a new one is made here."""
    # A directory that is no run gets nothing written into it, nor is it made.
    if resume and (Path(resume) / "config.yaml").is_file():
        return str(resume)
    # As Hydra keeps what it resolved once, and takes it along where it copies a configuration.
    kept = OmegaConf.get_cache(_root_)["run_dir"]
    if (resume, job) not in kept:
        kept[resume, job] = _find_or_make(resume, job, _root_)
    return kept[resume, job]


def _find_or_make(resume: str | None, job: str, root: Any) -> str:
    folder = Path("runs") / job
    if resume == "auto" and not _only_shows():
        from .run.resuming import as_typed, same_run

        found = same_run(as_typed(root), folder)
        if found is not None:
            return str(found)
    name, shared = _run_id()
    return str(folder / name) if shared or _only_shows() else _made(folder, name)


def sweep_dir() -> str:
    """One directory per sweep, made here."""
    return _made(Path("runs") / "sweep", datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))


def _made(folder: Path, name: str) -> str:
    """A folder that nobody else has: of two that come at once, one takes another name."""
    for number in count(1):
        path = folder / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return str(path)
    raise AssertionError


def _only_shows() -> bool:
    return bool({"--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help"} & {*sys.argv})


def _run_id() -> tuple[str, bool]:
    """A name, and whether several processes have it, each of which was started by itself."""
    if own := os.environ.get("LIGHTNING_DISTILL_RUN_ID"):
        return own, True
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # torchrun starts every rank by itself; without --rdzv-id all its runs are called "none".
        run = os.environ["TORCHELASTIC_RUN_ID"]
        return f"torchrun-{os.getppid() if run == 'none' else run}", True
    if "SLURM_JOB_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        # Each srun of one allocation is a run of its own.
        step = os.environ.get("SLURM_STEP_ID")
        return f"slurm-{os.environ['SLURM_JOB_ID']}" + ("" if step is None else f".{step}"), True
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3], False


def _label_kind(task: Any) -> str:
    # Read by a job only, which needs torch anyway.
    from .run.task import made_task

    return made_task(task).label_kind


def _label_weight(of: str = "", *, _root_: Any) -> float:
    # Read by a job only, as above.
    from .run.label_weight import label_weight

    # Written without an argument, `${label_weight:}` gives an empty one.
    return label_weight(OmegaConf.select(_root_, "criteria"), of or "teacher.logits")


# `replace`, because tests and notebooks may import this module more than once.
OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
OmegaConf.register_new_resolver("sweep_dir", sweep_dir, use_cache=True, replace=True)
OmegaConf.register_new_resolver("label_weight", _label_weight, replace=True)
OmegaConf.register_new_resolver(
    "fused", lambda precision: not str(precision).endswith("mixed"), replace=True
)
OmegaConf.register_new_resolver("label_kind", _label_kind, replace=True)
# Of configurations that were written before; a task is named as it is.
OmegaConf.register_new_resolver("agreement_task", lambda task: task, replace=True)


@hydra.main(version_base="1.3", config_path="pkg://lightning_distill.conf", config_name="main")
def _app(cfg: DictConfig) -> Any:
    # The configuration is composed; processes that a job starts shall not find it set.
    by_main = _unset_full_error()
    try:
        return _run(cfg)
    finally:
        # A sweep's failed members are reported after the last one, and not by Hydra's own text.
        if by_main:
            _set_full_error()


def _run(cfg: DictConfig) -> Any:
    _find_own_modules()
    # Threads of torch that wait for each other by spinning make a step twenty times as slow as
    # soon as anything else runs on their cores; torch reads this when it is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        _refuse_a_search_without_sweep()
        _refuse_resume_in_a_sweep(cfg)
        _refuse_sweeps_over_processes(cfg)
    except ValueError as error:
        if os.environ.get(FULL_ERROR) == "1":
            raise
        report(error, Path(str(cfg.output_dir)))
        # No other member would fare better.
        sys.exit(1)
    # transformers imports torchao where it is installed, which reports kernels of other machines.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It says that it has listed the fonts, which is the first line of the first run.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    directory = Path(str(cfg.output_dir)).absolute()
    was_run = (directory / "config.yaml").is_file()
    try:
        # Before what takes seconds to import.
        check_before_loading(cfg)
        from .jobs import run

        with _sigterm_as_ctrl_c():
            return run(cfg)
    except KeyboardInterrupt:
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:
            print(f"\nStopped. Go on with: lightning-distill {quoted('resume', directory)}")
        sys.exit(130)
    except Exception as error:
        if os.environ.get(FULL_ERROR) == "1":
            raise
        # What is wrong with going on is not what became of the run.
        report(error, directory, "resume_error.txt" if cfg.resume and was_run else "error.txt")
        if _is_sweep():
            # An exception, unlike an exit, lets Hydra run the other members.
            FAILED.append(f"{cfg.output_dir}: {message_of(error)}")
            raise MemberFailed(FAILED[-1]) from error
        sys.exit(1)


def _find_own_modules() -> None:
    """Let `_target_` name files next to where the command is typed, behind all libraries.

    In front, as `python -m` has them, a file datasets.py would take the place of a library.
    """
    own = os.getcwd()
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != own] + [own]


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse_resume_in_a_sweep(cfg: DictConfig) -> None:
    if cfg.get("resume") and _is_sweep():
        raise ValueError(
            f"resume={cfg.resume} goes on with one run, and a sweep (-m) has many: resume the "
            "members that have not ended one by one, as in resume=runs/sweep/TIME/0."
        )


def _is_sweep() -> bool:
    return str(HydraConfig.get().mode).endswith("MULTIRUN")


def _refuse_a_search_without_sweep() -> None:
    search = HydraConfig.get().runtime.choices.get("hparams_search")
    if search is not None and not _is_sweep():
        raise ValueError(
            f"hparams_search={search} names many runs, and this is one: add -m, as in "
            f"lightning-distill -m hparams_search={search}."
        )


def _refuse_sweeps_over_processes(cfg: DictConfig) -> None:
    trainer = cfg.get("trainer") or {}
    devices, nodes = trainer.get("devices", "auto"), trainer.get("num_nodes", 1)
    one = nodes in (1, None) and _is_one(devices, trainer.get("accelerator", "auto"))
    if one or not _is_sweep():
        return
    # Lightning's processes would each start the whole sweep again.
    raise ValueError(
        f"A sweep (-m) cannot start several processes per run, and trainer.devices={devices} "
        f"trainer.num_nodes={nodes} may: write trainer.devices=1, run the members one by one, or "
        "use a launcher that gives each its own processes, such as hydra/launcher=submitit_slurm."
    )


def _is_one(devices: Any, accelerator: Any) -> bool:
    """Whether Lightning starts one process for these devices of a host."""
    if OmegaConf.is_list(devices):
        return len(devices) == 1
    given = str(devices).strip()
    if given in ("auto", "-1", "None"):
        # Of CPUs that is one process; of others as many as there are.
        import torch

        return accelerator == "cpu" or torch.accelerator.device_count() < 2
    # Names of devices, as in "0," or "0,1"; a number says how many.
    return given == "1" if "," not in given else len(given.strip(",").split(",")) == 1


def _set_full_error() -> None:
    os.environ[FULL_ERROR] = os.environ[BY_MAIN] = "1"


def _unset_full_error() -> bool:
    """Whether it was set by `main`, and not by whoever typed the command."""
    by_main = os.environ.pop(BY_MAIN, None) is not None
    if by_main:
        os.environ.pop(FULL_ERROR, None)
    return by_main


def versions() -> str:
    """This package's version, and those of what its figures depend on."""
    made_of = [f"{name} {version(name)}" for name in ("torch", "lightning", "transformers")]
    python = ".".join(map(str, sys.version_info[:3]))
    own = version("lightning-distill")
    return f"lightning-distill {own} ({', '.join(made_of)}, Python {python})"


def main() -> None:
    """Entry point of the command."""
    try:
        os.getcwd()
    except FileNotFoundError:
        show("lightning-distill: error: The folder where this is typed is gone: cd to another one.")
        sys.exit(1)
    if "--version" in sys.argv[1:]:
        print(versions())
        return
    # Processes that a job starts get the same words again.
    sys.argv[1:] = readable_by_hydra(sys.argv[1:])
    if os.environ.get(FULL_ERROR) == "1":
        sys.argv[1:] = with_teacher(with_data(with_hub_data(sys.argv[1:])))
        return _app()
    _set_full_error()
    FAILED.clear()
    try:
        sys.argv[1:] = with_teacher(with_data(with_hub_data(sys.argv[1:])))
        return _app()
    except MemberFailed as error:
        # Said when they failed, which may be many runs ago; in processes of a launcher, the first.
        for failed in FAILED or [str(error)]:
            print(f"lightning-distill: a run of the sweep has failed: {failed}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        # Nothing has begun, so that there is no directory to leave the traceback in.
        show(f"lightning-distill: error: {message_of_hydra(error)}")
        show(f"({NOWHERE})")
        sys.exit(1)
    finally:
        _unset_full_error()


if __name__ == "__main__":
    main()
