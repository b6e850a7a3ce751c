"""What a run says of itself before its first step."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from torchmetrics import Metric

from ..callbacks.random_state import random_state, set_random_state
from ..checks.first_lines import FirstLines, Known, say_findings
from ..checks.memory import check_memory
from ..log_lines import saying
from ..training.weak_teacher import WeakTeacher
from .call import group
from .image_processors import own_image_processors
from .memory_on_paper import memory_of, memory_on_paper, UnknownOnPaper
from .tokenizers import own_tokenizers

# How the names of strategies begin whose processes are copies of this one.
COPIES = ("ddp_fork", "ddp_notebook")

log = logging.getLogger("lightning_distill")


def first_lines(
    cfg: DictConfig,
    data: Any,
    metrics: Mapping[str, Metric],
    weak_teacher: WeakTeacher | None = None,
) -> list[Callback]:
    """What says the first lines of a run, if it shall.

    Args:
        cfg: the run's configuration.
        data: a data module that is set up.
        metrics: those of the run.
        weak_teacher: that measures the teacher before.
    """
    # A run that is older than this key goes on as it was.
    if not cfg.get("preview"):
        return []
    known = Known(
        data,
        metrics,
        monitor=str(cfg.monitor).removeprefix("val/"),
        tokenizers=own_tokenizers(cfg),
        processors=own_image_processors(cfg),
        becomes_sparse=bool(group(cfg, "sparsity")),
        is_compiled=bool(cfg.get("compile")),
    )
    return [FirstLines(known, weak_teacher)]


@rank_zero_only
def say_memory(cfg: DictConfig, data: Any, of_labels: bool = False) -> None:
    """How much memory a step will take, before a model is loaded; a warning if there is less.

    Of a run that goes on nothing is said, and neither where it cannot be told.

    Args:
        cfg: the run's configuration; it stays as it is.
        data: a data module that is set up.
        of_labels: whether the student learns from labels alone.
    """
    # A GPU that was asked for its memory cannot be used in copies of this process.
    copied = str(cfg.trainer.get("strategy")).startswith(COPIES)
    if not cfg.get("preview") or cfg.resume or copied:
        return
    device = torch.device("cpu")
    state = random_state(device)
    try:
        with _silent():
            found, rows = memory_on_paper(
                cfg, data, of_labels, with_flops=False, small_for_real=True
            )
            there = memory_of(cfg)
    except UnknownOnPaper:
        return
    except Exception as error:
        # What is wrong with the configuration is said by those that make the objects.
        log.debug("Memory: not predicted: %s", error)
        return
    finally:
        set_random_state(state, device)
    say_findings(check_memory(found, there, rows))


@contextmanager
def _silent() -> Iterator[None]:
    """Models that are made on paper say nothing: it will be said of those that are loaded."""
    with saying(lambda record: False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
