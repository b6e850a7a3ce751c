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

CONFIG = "config.yaml"


def prepare_run(cfg: DictConfig) -> DictConfig:
    """Set up logging and randomness, and write or read the run's configuration.

    Raises:
        FileNotFoundError: if `resume` names a directory without a configuration.
    """
    _quiet()
    if cfg.resume:
        saved = Path(str(cfg.resume)) / CONFIG
        if not saved.is_file():
            near = ", ".join(str(p) for p in _runs(Path("runs"))[-3:]) or "none"
            raise FileNotFoundError(
                f"`resume` must be the directory of a run, which holds {CONFIG}; {cfg.resume} does "
                f"not. Newest runs here: {near}."
            )
        _refuse_overrides()
        cfg = OmegaConf.load(saved)  # type: ignore[assignment]
        cfg.resume = str(saved.parent)
        # The run may have been moved since.
        cfg.output_dir = cfg.resume
    directory = Path(str(cfg.output_dir)).absolute()
    cfg.output_dir = str(directory)
    _check_numbers(cfg)
    if OmegaConf.select(cfg, "optimizer.lr") is not None:
        # Settled now: it depends on a choice that a resumed run no longer knows.
        cfg.optimizer.lr = float(cfg.optimizer.lr)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    _write(cfg, directory)
    return cfg


def _refuse_overrides() -> None:
    if not HydraConfig.initialized():
        return
    given = [o for o in HydraConfig.get().overrides.task if not o.startswith("resume=")]
    if given:
        raise ValueError(
            f"`resume` goes on with the run's own configuration; leave out {' '.join(given)}, or "
            "start a new run."
        )


def _check_numbers(cfg: DictConfig) -> None:
    """Refuse at once what would fail only when a teacher is trained already."""
    whole = ["seed", "trainer.max_epochs", "trainer.max_steps", "trainer.accumulate_grad_batches"]
    for name in [*whole, "trainer.gradient_clip_val", "optimizer.lr", "optimizer.weight_decay"]:
        value = OmegaConf.select(cfg, name)
        if value is None:
            continue
        kind, words = (int, "a whole number") if name in whole else (int | float, "a number")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} must be {words}, got {value!r}.")
    limited = OmegaConf.select(cfg, "trainer.max_steps", default=-1) != -1
    for name, unlimited in (("max_epochs", limited), ("accumulate_grad_batches", False)):
        value = OmegaConf.select(cfg, f"trainer.{name}")
        if value is not None and value < 1 and not (unlimited and value == -1):
            raise ValueError(f"trainer.{name} must be at least 1, got {value}.")
    lr = OmegaConf.select(cfg, "optimizer.lr")
    if lr is not None and not lr > 0:
        raise ValueError(f"optimizer.lr must be positive, got {lr}.")


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
        # The first call only initialises OneCycleLR; no step is skipped.
        ".*lr_scheduler.step\\(\\)` before `optimizer.step.*",
    ):
        warnings.filterwarnings("ignore", message=message)
