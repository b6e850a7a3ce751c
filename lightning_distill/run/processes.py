"""More processes than cores, said before they start."""

import logging
import os
from typing import Any

import torch
from omegaconf import DictConfig

log = logging.getLogger("lightning_distill")


def warn_of_processes(cfg: DictConfig) -> None:
    """Say so if processes on CPUs of this host have to share cores.

    Args:
        cfg: the run's configuration.
    """
    count, cores = _processes_on_cpus(cfg.get("trainer") or {}), _cores()
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    # Lightning gives each process its part of the cores, unless the environment says how many.
    each = int(threads) if threads.isdecimal() else 1
    if count > 1 and count * each > cores:
        of_threads = "" if each == 1 else f" of {each} threads (OMP_NUM_THREADS)"
        log.warning(
            "Processes: trainer.devices=%d starts %d%s on %d core%s, where they wait for each "
            "other: trainer.devices=%d is as fast or faster",
            count,
            count,
            of_threads,
            cores,
            "" if cores == 1 else "s",
            max(cores // each, 1),
        )


def _processes_on_cpus(trainer: Any) -> int:
    """How many processes of this host are trained in on its CPUs; 0 where nobody can tell."""
    accelerator, devices = trainer.get("accelerator", "auto"), str(trainer.get("devices", 1))
    on_cpus = accelerator == "cpu" or (
        accelerator in ("auto", None) and not torch.accelerator.is_available()
    )
    return int(devices) if on_cpus and devices.isdecimal() else 0


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
