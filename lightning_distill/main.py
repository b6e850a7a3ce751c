"""The `lightning-distill` command: compose a configuration and run one job.

Nothing here imports torch before a job runs, so that `--help` and completion stay quick.
"""

import itertools
import logging
import os
import re
import sys
import traceback
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from .composed import newest_unfinished

log = logging.getLogger("lightning_distill")

# Where Hydra's variable is 1 it raises its errors, instead of printing them in its own way; ours
# says that `main` has set it, and not the user.
FULL_ERROR, BY_MAIN = "HYDRA_FULL_ERROR", "LIGHTNING_DISTILL_SET_FULL_ERROR"


class MemberFailed(RuntimeError):
    """One run of a sweep has failed, and said why."""


def resumed_dir(resume: str | None, job: str, *, _root_: DictConfig) -> str | None:
    """The directory of the run that goes on; `None` where a new one begins."""
    if resume != "auto":
        return resume
    if (shared := _shared_id()) is not None:
        # They would look at different moments.
        raise ValueError(
            f"resume=auto looks for a run in one process, and {shared} are several: name the run, "
            "as in resume=DIR."
        )
    found = newest_unfinished(Path("runs") / job, _root_)
    return None if found is None else str(found)


def run_dir(resumed: str | None, job: str) -> str:
    """One directory per run, the same in each of its processes, and of no other run."""
    # A directory that is no run gets nothing written into it, nor is it made.
    if resumed and (Path(resumed).expanduser() / "config.yaml").is_file():
        return str(Path(resumed).expanduser())
    shared = _shared_id()
    return _of_its_own(f"runs/{job}") if shared is None else f"runs/{job}/{shared}"


def sweep_dir() -> str:
    """One directory per sweep."""
    return _of_its_own("runs/sweep")


def _of_its_own(parent: str) -> str:
    """Make a directory with the time as its name."""
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]
    # Two that begin in one moment never share one.
    for number in itertools.count():
        path = Path(parent) / (f"{name}-{number}" if number else name)
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return str(path)
    raise AssertionError("it counts without end")


def _shared_id() -> str | None:
    """What processes of one run that were started apart have in common."""
    if own := os.environ.get("LIGHTNING_DISTILL_RUN_ID"):
        return own
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # torchrun starts every rank by itself; without --rdzv-id all its runs are called "none".
        run = os.environ["TORCHELASTIC_RUN_ID"]
        return f"torchrun-{os.getppid() if run == 'none' else run}"
    if "SLURM_JOB_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        # Each srun of one allocation is a run of its own.
        step = os.environ.get("SLURM_STEP_ID")
        return f"slurm-{os.environ['SLURM_JOB_ID']}" + ("" if step is None else f".{step}")
    return None


def _label_kind(task: Any) -> str:
    # Read by a job only, which needs torch anyway.
    from .run.task import made_task

    return made_task(task).label_kind


def _learning_rate(student: str) -> float:
    # What is trained from nothing bears larger steps than what was trained before.
    return 2e-3 if student in ("from_config", "causal_lm") else 5e-5


# `replace`, because tests and notebooks may import this module more than once.
OmegaConf.register_new_resolver("run_dir", run_dir, use_cache=True, replace=True)
OmegaConf.register_new_resolver("resumed_dir", resumed_dir, replace=True)
OmegaConf.register_new_resolver("sweep_dir", sweep_dir, use_cache=True, replace=True)
OmegaConf.register_new_resolver("learning_rate", _learning_rate, replace=True)
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
    # Classes next to where the command is typed can be named by `_target_`; they stand behind the
    # libraries, of which none may find a file of the user's in the place of another.
    sys.path.append(os.getcwd())
    # Threads of torch that wait for each other by spinning make a step twenty times as slow as
    # soon as anything else runs on their cores; torch reads this when it is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        _refuse_a_search_without_sweep()
        _refuse_sweeps_over_processes(cfg)
    except ValueError as error:
        if os.environ.get(FULL_ERROR) == "1":
            raise
        _report(error, Path(str(cfg.output_dir)))
        # No other member would fare better.
        sys.exit(1)
    try:
        from .jobs import run

        return run(cfg)
    except KeyboardInterrupt:
        from .run.typed import typed

        print(f"\nStopped. Go on with: lightning-distill {typed('resume', cfg.output_dir)}")
        sys.exit(130)
    except Exception as error:
        if os.environ.get(FULL_ERROR) == "1":
            raise
        _report(error, Path(str(cfg.output_dir)))
        if _is_sweep():
            # An exception, unlike an exit, lets Hydra run the other members.
            raise MemberFailed(f"{cfg.output_dir}: {_message(error)}") from error
        sys.exit(1)


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


def _report(error: Exception, directory: Path) -> None:
    message = _message(error)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "error.txt").write_text(traceback.format_exc())
    print(f"lightning-distill: error: {message}", file=sys.stderr)
    print(
        f"(Python's traceback is in {directory / 'error.txt'}; HYDRA_FULL_ERROR=1 prints it.)",
        file=sys.stderr,
    )


def _message(error: BaseException) -> str:
    """What the innermost cause says, and where in the configuration it arose."""
    from hydra.errors import InstantiationException

    where = ""
    while isinstance(error, InstantiationException):
        text = str(error)
        if "full_key:" in text:
            where = text.rpartition("full_key:")[2].strip()
        if error.__cause__ is None:
            break
        error = error.__cause__
    name = "" if isinstance(error, ValueError | FileNotFoundError) else f"{type(error).__name__}: "
    text = str(error).strip() or type(error).__name__
    return f"{name}{text}" + (f" (in {where})" if where and where not in text else "")


def _set_full_error() -> None:
    os.environ[FULL_ERROR] = os.environ[BY_MAIN] = "1"


def _unset_full_error() -> bool:
    """Whether it was set by `main`, and not by whoever typed the command."""
    by_main = os.environ.pop(BY_MAIN, None) is not None
    if by_main:
        os.environ.pop(FULL_ERROR, None)
    return by_main


# What to type where a group was set to null, which Hydra does not know.
INSTEAD_OF_NULL = {
    "criteria": "criteria=[hard_label]",
    "metrics": "metrics=[accuracy]",
    "callbacks": "callbacks=[]",
    "logger": "logger=[]",
}


def _message_of_hydra(error: Exception) -> str:
    """What is wrong with what was typed, on one line, and what to type instead."""
    text = " ".join(f"{error} {error.__cause__ or ''}".partition("Config search path")[0].split())
    if "Config group override must be a string or a list" in text:
        typed = [a.lstrip("+").partition("=") for a in sys.argv[1:]]
        ways = [
            f"{INSTEAD_OF_NULL.get(group, f'~{group}')} instead of {group}=null"
            for group, _, value in typed
            if value == "null"
        ]
        return f"A group of the configuration cannot be null: write {', '.join(ways)}."
    unknown = re.search(r"Could not (?:find|load) '(\w+)/([^']*)'", text)
    if unknown and (ours := files("lightning_distill.conf") / unknown[1]).is_dir():
        group, name = unknown.groups()
        known = [p.name[:-5] for p in ours.iterdir()]
        near = get_close_matches(name, known, n=3)
        listed = f"Nearest: {', '.join(near)}." if near else f"It has {', '.join(sorted(known))}."
        return f"There is no {name!r} in the group {group!r}. {listed}"
    return text


def main() -> None:
    """Entry point of the command."""
    if os.environ.get(FULL_ERROR) == "1":
        return _app()
    _set_full_error()
    try:
        return _app()
    except MemberFailed as error:
        # Said when it failed, which may be many runs ago.
        print(f"lightning-distill: a run of the sweep has failed: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        # Nothing has begun, so that there is no directory to leave the traceback in.
        print(f"lightning-distill: error: {_message_of_hydra(error)}", file=sys.stderr)
        print("(HYDRA_FULL_ERROR=1 prints Python's traceback.)", file=sys.stderr)
        sys.exit(1)
    finally:
        _unset_full_error()


if __name__ == "__main__":
    main()
