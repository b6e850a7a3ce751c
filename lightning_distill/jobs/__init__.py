"""What the command line can do: one file per job."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..run.directory import open_run
from ..run.live_processes import explained_by_others
from ..run.targets import find_job
from ..run.trainer import check_training
from .cache import cache
from .check import check
from .compare import compare
from .distill import distill
from .evaluate import evaluate
from .export import export
from .finetune import finetune
from .generate import generate
from .inspect import inspect
from .search import search

__all__ = [
    "cache",
    "check",
    "compare",
    "distill",
    "evaluate",
    "export",
    "finetune",
    "generate",
    "inspect",
    "run",
    "search",
]


def run(cfg: DictConfig) -> Any:
    """Run the job that the configuration names; returns its monitored metric, if it has one."""
    with open_run(cfg) as cfg, explained_by_others():
        options: Any = OmegaConf.to_container(cfg.job, resolve=True)
        if not isinstance(options, dict) or "_target_" not in options:
            raise ValueError("`job` must name a function by `_target_`, as in job=distill.")
        check_training(cfg)
        return find_job(options.pop("_target_"))(cfg, **options)
