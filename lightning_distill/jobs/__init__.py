"""What the command line can do: one file per job."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..run.directory import note_end, prepare_run
from ..run.run_lock import locked
from ..run.targets import find
from .cache import cache
from .distill import distill
from .evaluate import evaluate
from .export import export
from .finetune import finetune
from .inspect import inspect

__all__ = [
    "cache",
    "distill",
    "evaluate",
    "export",
    "finetune",
    "inspect",
    "run",
]


def run(cfg: DictConfig) -> Any:
    """Run the job that the configuration names; returns its monitored metric, if it has one."""
    cfg = prepare_run(cfg)
    directory = Path(str(cfg.output_dir))
    options: Any = OmegaConf.to_container(cfg.job, resolve=True)
    if not isinstance(options, dict) or "_target_" not in options:
        raise ValueError("`job` must name a function by `_target_`, as in job=distill.")

    def busy(process: str) -> None:
        raise ValueError(
            f"Process {process} works on the run {directory} now. Wait until it ends, or start a "
            "run of its own, without resume."
        )

    with locked(directory / "running.lock", busy):
        value = find(options.pop("_target_"))(cfg, **options)
    note_end(directory)
    return value
