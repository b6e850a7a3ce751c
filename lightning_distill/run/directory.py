"""A run's directory: what it holds, and how a run goes on after it was cut off."""

import logging
import os
import warnings
from pathlib import Path

import lightning as L
import transformers
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict

from ..composed import CONFIG, fingerprint, FINISHED
from ..sealed import ChangedFileError, check_sealed, is_sealed, write_sealed, write_whole
from .check_values import check_values
from .read_config import read_config, TRUST
from .targets import allow, check_targets, KEY

log = logging.getLogger("lightning_distill")

AUTO = "auto"


def prepare_run(cfg: DictConfig) -> DictConfig:
    """Set up logging and randomness, and write or read the run's configuration.

    Raises:
        FileNotFoundError: if `resume` names a directory without a configuration.
    """
    _quiet()
    added, foreign = cfg.get(KEY), None
    trusted = bool(OmegaConf.select(cfg, TRUST))
    # Of what was typed and composed, before anything is settled.
    composed = fingerprint(cfg)
    here = Path.cwd()
    if cfg.resume == AUTO:
        cfg.resume = _found(Path(str(cfg.output_dir)))
    elif cfg.resume:
        _refuse_overrides()
    if cfg.resume:
        saved = Path(str(cfg.resume)) / CONFIG
        if not saved.is_file():
            near = ", ".join(str(p) for p in _runs(Path("runs"))[-3:]) or "none"
            raise FileNotFoundError(
                f"`resume` must be the directory of a run, which holds {CONFIG}; {cfg.resume} does "
                f"not. Newest runs here: {near}."
            )
        foreign = saved.parent
        cfg = read_config(saved, trusted)
        cfg.resume = str(saved.parent)
        # The run may have been moved since.
        cfg.output_dir = cfg.resume
        _say_if_edited(saved)
    directory = Path(str(cfg.output_dir)).absolute()
    cfg.output_dir = str(directory)
    if cfg.resume:
        cfg.resume = str(directory)
    # What the saved configuration adds itself does not count.
    allow(added, foreign)
    _go_to(cfg, here)
    check_values(cfg)
    check_targets(cfg)
    if OmegaConf.select(cfg, "optimizer.lr") is not None:
        # Settled now: it depends on a choice that a resumed run no longer knows.
        cfg.optimizer.lr = float(cfg.optimizer.lr)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    if not cfg.resume:
        with open_dict(cfg):
            cfg.composed, cfg.working_dir = composed, str(here)
        _write(cfg, directory)
    return cfg


def _found(directory: Path) -> str | None:
    """The run that `resume=auto` has found, whose directory this is, or none."""
    found = (directory / CONFIG).is_file()
    if found:
        log.info("Resuming: %s, the newest run of this configuration", directory)
    else:
        log.info("Resuming: no run of this configuration is unfinished; this one is new")
    return str(directory) if found else None


def _go_to(cfg: DictConfig, here: Path) -> None:
    """Let relative paths be those of the folder where the run was typed first."""
    there = cfg.get("working_dir")
    if not cfg.resume or there is None or Path(str(there)) == here:
        return
    if Path(str(there)).is_dir():
        os.chdir(str(there))
    else:
        log.warning(
            "%s, where this run was begun, is not there any more: relative paths are meant from %s "
            "now.",
            there,
            here,
        )


def _refuse_overrides() -> None:
    if not HydraConfig.initialized():
        return
    also = ("resume=", f"{KEY}=", f"{TRUST}=", f"+{TRUST}=")
    given = [o for o in HydraConfig.get().overrides.task if not o.startswith(also)]
    if given:
        raise ValueError(
            f"`resume` goes on with the run's own configuration; leave out {' '.join(given)}, or "
            "start a new run."
        )


def _say_if_edited(saved: Path) -> None:
    try:
        if is_sealed(saved):
            check_sealed(saved)
    except ChangedFileError:
        log.warning("%s was changed since the run began; it goes on with what it says now.", saved)


@rank_zero_only
def _write(cfg: DictConfig, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_sealed(directory / CONFIG, OmegaConf.to_yaml(cfg).encode())


@rank_zero_only
def note_end(directory: Path) -> None:
    """Leave a mark that a run has done all that it was asked for."""
    write_whole(directory / FINISHED, b"")


def newest_run(root: Path = Path("runs"), holding: str = "report.json") -> Path:
    """The directory of the newest run that holds a file or folder of this name.

    Raises:
        FileNotFoundError: if there is none.
    """
    found = [path for path in _runs(root) if (path / holding).exists()]
    if not found:
        raise FileNotFoundError(
            f"There is no finished run in {root.absolute()}: run `lightning-distill` first, "
            "or name a folder (job.path=... or job.run=...)."
        )
    return found[-1]


def _runs(root: Path) -> list[Path]:
    found = [p.parent for p in root.glob(f"**/{CONFIG}") if p.parent.name != ".hydra"]
    return sorted(found, key=lambda p: p.stat().st_mtime)


def _quiet() -> None:
    """Keep what a user can act on; hide notices about defaults that are meant so."""
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.accelerators.cuda",
        "lightning.fabric.utilities.distributed",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    # transformers imports torchao where it is installed, which reports kernels of other machines.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
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
