"""A run's directory: what it holds, and how a run goes on after it was cut off."""

import logging
import os
import warnings
from pathlib import Path

import lightning as L
import transformers
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from .check_values import check_values
from .read_config import read_config, TRUST
from .targets import allow, check_targets, KEY

CONFIG = "config.yaml"


def prepare_run(cfg: DictConfig) -> DictConfig:
    """Set up logging and randomness, and write or read the run's configuration.

    Raises:
        FileNotFoundError: if `resume` names a directory without a configuration.
    """
    _quiet()
    added, foreign = cfg.get(KEY), None
    trusted = bool(OmegaConf.select(cfg, TRUST))
    if cfg.resume:
        saved = Path(str(cfg.resume)) / CONFIG
        if not saved.is_file():
            near = ", ".join(str(p) for p in _runs(Path("runs"))[-3:]) or "none"
            raise FileNotFoundError(
                f"`resume` must be the directory of a run, which holds {CONFIG}; {cfg.resume} does "
                f"not. Newest runs here: {near}."
            )
        _refuse_overrides()
        foreign = saved.parent
        cfg = read_config(saved, trusted)
        cfg.resume = str(saved.parent)
        # The run may have been moved since.
        cfg.output_dir = cfg.resume
    directory = Path(str(cfg.output_dir)).absolute()
    cfg.output_dir = str(directory)
    # What the saved configuration adds itself does not count.
    allow(added, foreign)
    check_values(cfg)
    check_targets(cfg)
    if OmegaConf.select(cfg, "optimizer.lr") is not None:
        # Settled now: it depends on a choice that a resumed run no longer knows.
        cfg.optimizer.lr = float(cfg.optimizer.lr)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    _write(cfg, directory)
    return cfg


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


@rank_zero_only
def _write(cfg: DictConfig, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if not cfg.resume:
        text = OmegaConf.to_yaml(cfg)
        (directory / CONFIG).write_text(text)


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
