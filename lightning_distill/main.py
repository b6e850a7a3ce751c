"""The `lightning-distill` command: compose a configuration and run one job.

Nothing here imports torch before a job runs, so that `--help` and completion stay quick.
"""

import logging
import os
import sys
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger("lightning_distill")


def run_dir(resume: str | None, job: str) -> str:
    """One directory per run, the same in each of its processes."""
    # A directory that is no run gets nothing written into it, nor is it made.
    if resume and (Path(resume) / "config.yaml").is_file():
        return str(resume)
    return f"runs/{job}/{_run_id()}"


def _run_id() -> str:
    if own := os.environ.get("LIGHTNING_DISTILL_RUN_ID"):
        return own
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # torchrun starts every rank by itself; without --rdzv-id all its runs are called "none".
        run = os.environ["TORCHELASTIC_RUN_ID"]
        return f"torchrun-{os.getppid() if run == 'none' else run}"
    if "SLURM_JOB_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return f"slurm-{os.environ['SLURM_JOB_ID']}"
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]


def _label_kind(task: str | None) -> str:
    kinds = {"multi_label": "binary_cross_entropy", "regression": "mse"}
    return kinds.get(str(task), "cross_entropy")


# `replace`, because tests and notebooks may import this module more than once.
OmegaConf.register_new_resolver("run_dir", run_dir, use_cache=True, replace=True)
OmegaConf.register_new_resolver(
    "learning_rate", lambda student: 2e-3 if student == "from_config" else 5e-5, replace=True
)
OmegaConf.register_new_resolver(
    "fused", lambda precision: not str(precision).endswith("mixed"), replace=True
)
OmegaConf.register_new_resolver("label_kind", _label_kind, replace=True)
OmegaConf.register_new_resolver(
    "agreement_task", lambda task: task or "classification", replace=True
)


@hydra.main(version_base="1.3", config_path="pkg://lightning_distill.conf", config_name="main")
def _app(cfg: DictConfig) -> Any:
    # Classes next to where the command is typed can be named by `_target_`.
    sys.path.insert(0, os.getcwd())
    # Threads of torch that wait for each other by spinning make a step twenty times as slow as
    # soon as anything else runs on their cores; torch reads this when it is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        _refuse_sweeps_over_processes(cfg)
        from .jobs import run

        return run(cfg)
    except KeyboardInterrupt:
        print("\nStopped. Go on with: " + f"lightning-distill resume={cfg.output_dir}")
        sys.exit(130)
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        _report(error, Path(str(cfg.output_dir)))
        sys.exit(1)


def _refuse_sweeps_over_processes(cfg: DictConfig) -> None:
    is_sweep = str(HydraConfig.get().mode).endswith("MULTIRUN")
    devices = OmegaConf.select(cfg, "trainer.devices", default=1)
    if is_sweep and cfg.trainer.strategy != "auto" and str(devices) != "1":
        # Lightning's processes would each start the whole sweep again.
        raise ValueError(
            "A sweep (-m) cannot start several processes per run. Run the members one by one, "
            "or use a launcher that gives each its own processes, such as "
            "hydra/launcher=submitit_slurm."
        )


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


def main() -> None:
    """Entry point of the command."""
    _app()


if __name__ == "__main__":
    main()
