"""Train one model to its best, and measure it."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from rich.console import Console
from torch import nn

from ..module import DistillationModule
from .build import build_trainer


@dataclass
class Result:
    """What a stage leaves in `result.json`.

    Attributes:
        metrics: everything logged by the test, without the prefix `test/`.
        steps: optimizer steps taken in all.
        epochs: passes over the data, begun or finished.
        seconds: wall time of training.
        checkpoint: the best one's path within the run, or `None`.
    """

    metrics: dict[str, float]
    steps: int
    epochs: int
    seconds: float
    checkpoint: str | None


def say(title: str, text: str) -> None:
    """A heading on the console of the first process."""
    rank_zero_only(Console().print)(f"[bold]{title}[/bold]  {text}", highlight=False)


def train(
    cfg: DictConfig,
    module: DistillationModule,
    data: Any,
    directory: Path,
    **trainer_changes: Any,
) -> Result:
    """Fit, put the best weights back and test; goes on where a stage in `directory` stopped.

    Args:
        cfg: the run's configuration.
        module: trained in place; afterwards it holds the best weights by `cfg.monitor`.
        data: a LightningDataModule.
        directory: checkpoints, `metrics.csv` and `result.json` are written there.
        trainer_changes: arguments of the trainer that differ from `cfg.trainer`.

    Raises:
        KeyboardInterrupt: if the user stopped the training; the last checkpoint is kept.
    """
    done = directory / "result.json"
    last = directory / "checkpoints" / "last.ckpt"
    resuming = bool(cfg.resume)
    if resuming and done.is_file():
        result = Result(**json.loads(done.read_text()))
        if result.checkpoint is not None:
            # Adapters are sized by a batch, and the checkpoint holds them.
            module.prepare(next(iter(data.train_dataloader())), check=False)
            load_checkpoint(module, directory / result.checkpoint)
        return result
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    trainer = build_trainer(cfg, directory, **trainer_changes)
    start = time.perf_counter()
    trainer.fit(
        module, datamodule=data, ckpt_path=str(last) if resuming and last.is_file() else None
    )
    if trainer.interrupted:
        raise KeyboardInterrupt
    seconds = time.perf_counter() - start
    steps, epochs = trainer.global_step, max(trainer.current_epoch, 1)
    checkpoint = trainer.checkpoint_callback
    best = None
    if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_path:
        best = Path(checkpoint.best_model_path)
        load_checkpoint(module, best)
    trainer.test(module, datamodule=data, verbose=False)
    metrics = {
        name.removeprefix("test/"): float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("test/")
    }
    inside = None if best is None else str(best.relative_to(directory))
    result = Result(metrics, steps, epochs, seconds, inside)
    _write(done, result)
    return result


@rank_zero_only
def _write(path: Path, result: Result) -> None:
    path.write_text(json.dumps(asdict(result), indent=2))


def load_checkpoint(module: nn.Module, path: Path) -> None:
    """Put a checkpoint's weights into `module`, which must have exactly these."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
