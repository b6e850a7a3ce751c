"""A run's directory: what it holds, and how a run goes on after it was cut off."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import transformers
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict

from ..cache.lock import FolderLock
from ..check_values import check_values
from ..models.remote_code import trusting_remote_code
from ..newest_run import check_is_run
from ..read_config import check_expansion
from .of_run import follow_run, run_named_by
from .processes import warn_of_processes
from .resuming import as_typed, AUTO, find_auto, go_on, write_record, write_settled
from .targets import check_targets, trusting
from .typed import ALLOW, check_remote_code, REMOTE_CODE, typed

log = logging.getLogger("lightning_distill")


@contextmanager
def open_run(cfg: DictConfig) -> Iterator[DictConfig]:
    """Set up logging and randomness, and write or read the run's configuration.

    Meanwhile no other process can write into the run's directory.

    Raises:
        FileNotFoundError: if `resume` names a directory without a configuration.
        ValueError: if it is given what a run that goes on cannot have, for a value that cannot be,
            for what a configuration may not name, or if another process is at it.
    """
    _quiet()
    typed_config, auto = as_typed(cfg), cfg.resume == AUTO
    # Of what is typed; a run's own file cannot say it.
    added, trusted = typed(cfg, ALLOW), bool(typed(cfg, REMOTE_CODE))
    if auto:
        cfg.resume = find_auto(cfg)
    directory = Path(str(cfg.resume or cfg.output_dir)).absolute()
    if cfg.resume:
        check_is_run("resume", Path(str(cfg.resume)))
    named = None if cfg.resume else run_named_by(cfg)
    came = directory if cfg.resume else named
    with trusting(added, came), trusting_remote_code(trusted), _locked(directory):
        if cfg.resume:
            cfg = go_on(directory, auto)
            cfg.resume = str(directory)
            with open_dict(cfg):
                cfg.allow_targets, cfg.trust_remote_code = added or [], trusted
        elif named is not None:
            follow_run(cfg, named)
        # The run may have been moved since.
        cfg.output_dir = str(directory)
        check_expansion(cfg)
        check_values(cfg)
        check_targets(cfg)
        check_remote_code(cfg, trusted, of_file=named is not None)
        warn_of_processes(cfg)
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        if not cfg.resume:
            _begin(cfg, directory, typed_config)
        yield cfg


def begin_trial(cfg: DictConfig, directory: Path) -> None:
    """Make a run within another one, whose configuration is made of that of the other.

    Args:
        cfg: its configuration; what is wrong with it is found here. One with `resume` goes on.
        directory: of it, made if missing.

    Raises:
        ValueError: for a value that cannot be, and for what a configuration may not name.
    """
    cfg.output_dir = str(directory)
    composed = as_typed(cfg)
    check_expansion(cfg)
    check_values(cfg)
    check_targets(cfg)
    check_remote_code(cfg, bool(typed(cfg, REMOTE_CODE)), of_file=True)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    if not cfg.resume:
        _begin(cfg, directory, composed)


@rank_zero_only
def _begin(cfg: DictConfig, directory: Path, composed: dict[str, Any]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    # What a run before it has left here is none of its own.
    (directory / "error.txt").unlink(missing_ok=True)
    write_record(directory, composed, OmegaConf.to_yaml(cfg))


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    if getattr(rank_zero_only, "rank", 0) != 0:
        # Its first process holds the lock.
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(directory, instead="start another run")
    try:
        lock.acquire()
    except OSError as error:
        # Some file systems have no links.
        log.warning("%s cannot be locked (%s): run one process in it at a time.", directory, error)
    try:
        yield
    finally:
        lock.release()


def settle(cfg: DictConfig, values: Mapping[str, Any], write: bool = True) -> None:
    """Set values that were found out, also in the configuration that a resumed run reads.

    Args:
        cfg: the run's configuration, changed in place.
        values: by name, as in `optimizer.lr`.
        write: false leaves the file as it is.
    """
    for name, value in values.items():
        OmegaConf.update(cfg, name, value, force_add=True)
    if values and write:
        write_settled(Path(str(cfg.output_dir)), values)


def _quiet() -> None:
    """Keep what a user can act on; hide notices about defaults that are meant so."""
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.accelerators.cuda",
        "lightning.fabric.utilities.distributed",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    if getattr(rank_zero_only, "rank", 0) != 0:
        # What the data has to say, once is enough.
        logging.getLogger("lightning_distill").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for message in (
        ".*does not have many workers.*",
        ".*Experiment logs directory .* exists and is not empty.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*number of training batches .* is smaller than the logging interval.*",
        ".*The `srun` command is available.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        # What is predicted goes to disk.
        ".*predict returned None.*",
        # The first call only initialises OneCycleLR; no step is skipped.
        ".*lr_scheduler.step\\(\\)` before `optimizer.step.*",
    ):
        warnings.filterwarnings("ignore", message=message)
