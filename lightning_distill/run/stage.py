"""Train one model to its best, and measure it."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from torch import nn

from ..callbacks import GracefulStop, LastCheckpoint, LastValidation, StepProfile
from ..callbacks.kept_weights import chooser
from ..data.data import DataFacts
from ..models.compilation import compile_in_place
from ..models.files import file_in
from ..models.gradient_checkpointing import checkpoint_gradients
from ..report import PREDICTIONS, Profile
from ..sealed import check_sealed, read_sealed, write_sealed
from ..training.distill import fit
from ..training.evaluation import parts_of_test
from ..training.module import DistillationModule
from .budget import Validations
from .intervals import intervals_of_test
from .longer_schedule import LongerSchedule
from .sparsity import build_sparsity
from .trainer import build_trainer
from .wall_time import WallTime

log = logging.getLogger("lightning_distill")

FINAL = "final.ckpt"


@dataclass
class Result:
    """What a stage leaves in `result.json`.

    Attributes:
        metrics: everything logged by the test, without the prefix `test/`.
        steps: optimizer steps taken in all.
        epochs: passes over the data, begun or finished.
        seconds: wall time of training, of a resumed run that of all its parts.
        checkpoint: path within the run of the weights that were tested.
        validations: how often it was measured on the validation rows, but for a trial.
        parts: what metrics of the test are made of, such as the kinds of entities, by name.
        best: what was monitored on the validation rows, of the weights that were tested; `None` if
            nothing was.
        best_mode: `max` or `min`, what is better of it; empty if nothing was monitored.
        intervals: both ends of the 95 % intervals of those of `metrics` that have one.
        kept_step: how many optimizer steps the weights that were tested have behind them.
    """

    metrics: dict[str, float]
    steps: int
    epochs: int
    seconds: float
    checkpoint: str
    validations: int = 0
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    best: float | None = None
    best_mode: str = ""
    intervals: dict[str, Sequence[float]] = field(default_factory=dict)
    kept_step: int = 0


@rank_zero_only
def say(title: str, text: str) -> None:
    """A line on the console and in `log.txt`, from the first process."""
    log.info("%s: %s", title, text)


def train(
    cfg: DictConfig,
    module: DistillationModule,
    data: Any,
    directory: Path,
    more_callbacks: Sequence[Callback] = (),
    **trainer_changes: Any,
) -> Result:
    """Fit, put the best weights back and test; goes on where a stage in `directory` stopped.

    Args:
        cfg: the run's configuration.
        module: trained in place; afterwards it holds the best weights by `cfg.monitor`.
        data: a LightningDataModule.
        directory: checkpoints, `metrics.csv` and `result.json` are written there, and
            `profile.json` and `profile.png` with `cfg.profile`.
        more_callbacks: besides those of `cfg`.
        trainer_changes: arguments of the trainer that differ from `cfg.trainer`.

    Raises:
        ValueError: if no step was made.
        KeyboardInterrupt: if the user stopped the training; the last checkpoint is kept.
    """
    done = directory / "result.json"
    resuming = bool(cfg.resume)
    result = _result(done, directory) if resuming else None
    if result is not None:
        # Adapters are sized by a batch, and the checkpoint holds them.
        module.prepare(next(iter(data.train_dataloader())), check=False)
        load_checkpoint(module, directory / result.checkpoint)
        return result
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    last = newest_whole(directory / "checkpoints") if resuming else None
    _begin(directory, last, resuming)
    make_ready(cfg, module)
    trainer = build_trainer(cfg, directory, **trainer_changes)
    validations, wall_time = Validations(), WallTime()
    stop = [GracefulStop(c) for c in trainer.callbacks if isinstance(c, LastCheckpoint)][:1]  # type: ignore[attr-defined]
    # A checkpoint holds the state of those that come before it.
    first = [validations, wall_time, LongerSchedule(), *more_callbacks, LastValidation(), *stop]
    trainer.callbacks[:0] = [*first, *build_sparsity(cfg)]  # type: ignore[attr-defined]
    profile = StepProfile() if cfg.get("profile") else None
    if profile is not None:
        trainer.callbacks.append(profile)  # type: ignore[attr-defined]
    fit(trainer, module, datamodule=data, ckpt_path=last)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if profile is not None:
        _keep_profile(cfg, module, profile, directory)
    steps, epochs = trainer.global_step, max(trainer.current_epoch, 1)
    if steps == 0:
        raise ValueError(
            "Training has ended without a step, so nothing was learnt. Look at trainer.max_epochs, "
            "trainer.max_steps, trainer.limit_train_batches and the data's size."
        )
    best, score, mode = None, None, ""
    said = f"{steps:,} steps in {wall_time.seconds:.0f} s"
    checkpoint = chooser(trainer)
    if checkpoint is not None:
        # By its name: the run may have been moved since the file was written.
        name = Path(checkpoint.best_model_path).name
        best = directory / "checkpoints" / name if name else None
        found = checkpoint.best_model_score
        if found is not None:
            score, mode = float(found), checkpoint.mode
            said += f", and the best {checkpoint.monitor} was {score:.4f}"
    say("Trained", said)
    kept_step = steps
    if best is None:
        # Nothing was monitored: the last weights are the result, and a resumed run needs them.
        best = directory / "checkpoints" / FINAL
        trainer.save_checkpoint(best, weights_only=True)
    else:
        kept_step = load_checkpoint(module, best)
    module.keeps_test_rows = True
    trainer.test(module, datamodule=data, verbose=False)
    _keep_rows(module.test_rows, DataFacts(data).label_names, directory)
    metrics = {
        name.removeprefix("test/"): float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("test/")
    }
    checkpoint_name = str(best.relative_to(directory))
    seconds = wall_time.seconds
    parts = parts_of_test(module.metrics)
    count = validations.count
    done_by = metrics, steps, epochs, seconds, checkpoint_name, count, parts
    intervals: dict[str, Sequence[float]] = dict(intervals_of_test(module, metrics))
    result = Result(*done_by, score, mode, intervals, kept_step)
    _write(done, result)
    return result


def make_ready(cfg: DictConfig, module: DistillationModule) -> None:
    """Let the models compute as the configuration says: less of them kept, or compiled."""
    # A run that is older than these keys goes on as it was.
    if OmegaConf.select(cfg, "gradient_checkpointing"):
        checkpoint_gradients(module.student)
    if OmegaConf.select(cfg, "compile"):
        compile_in_place(module.student)
        if module.taught_by is not None and module.taught_by.model is not None:
            compile_in_place(module.taught_by.model)


@rank_zero_only
def _keep_profile(
    cfg: DictConfig, module: DistillationModule, profile: StepProfile, directory: Path
) -> None:
    Profile(
        profile.times,
        num_workers=OmegaConf.select(cfg, "data.num_workers"),
        length_bucketing=OmegaConf.select(cfg, "data.length_bucketing"),
        cacheable=module.taught_by is not None and module.taught_by.is_live,
    ).save(directory)


@rank_zero_only
def _keep_rows(
    rows: Mapping[str, Mapping[str, torch.Tensor]], names: Sequence[str] | None, directory: Path
) -> None:
    """Write what was predicted for each test row, where rows have classes."""
    flat = {f"{of}.{name}": v for of, own in rows.items() for name, v in own.items()}
    if flat:
        about = {"classes": json.dumps([str(name) for name in names or ()])}
        save_file(flat, directory / PREDICTIONS, metadata=about)


@rank_zero_only
def _begin(directory: Path, last: Path | None, resuming: bool) -> None:
    """Say from where a stage goes on; what another run has left of its curves is no part of it."""
    if not resuming:
        (directory / "metrics.csv").unlink(missing_ok=True)
    elif (directory / "metrics.csv").is_file() and last is None:
        say("Resume", f"{directory} has no checkpoint: this stage begins at its first step again")


@rank_zero_only
def _write(path: Path, result: Result) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: it says that the stage has ended.
    write_sealed(path, json.dumps(asdict(result), indent=2).encode())


def _result(path: Path, directory: Path) -> Result | None:
    """What a stage has left, if it has ended and both that and its weights are whole."""
    if not path.is_file():
        return None
    try:
        result = Result(**json.loads(read_sealed(path)))
        check_sealed(file_in(directory, result.checkpoint, path.name))
        return result
    except (ValueError, TypeError, FileNotFoundError) as error:
        say("Resume", f"{error} The stage goes on from its newest checkpoint that is whole.")
        return None


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint in a folder that is what was written; `None` if there is none at all.

    Raises:
        ValueError: if there are some, and none of them is whole.
    """
    # `final.ckpt` holds weights alone.
    found = [path for path in folder.glob("*.ckpt") if path.name != FINAL]
    found.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    # It holds the state of all that is beside it.
    found.sort(key=lambda path: path.name != "last.ckpt")
    for path in found:
        try:
            check_sealed(path)
        except ValueError as error:
            log.warning("%s", error)
            continue
        if path != found[0]:
            say("Resume", f"from {path.name}, the newest checkpoint that is whole")
        return path
    if found:
        raise ValueError(
            f"No checkpoint in {folder} is what was written: {', '.join(p.name for p in found)}. "
            "Put a copy that is whole there, or start a new run."
        )
    return None


def load_student(student: nn.Module, path: Path) -> None:
    """Put the student's weights of a checkpoint into `student`, which must have exactly these.

    Raises:
        ChangedFileError: if the file is not what was written.
    """
    check_sealed(path)
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    begin = "student."
    student.load_state_dict({n[len(begin) :]: v for n, v in state.items() if n.startswith(begin)})


def load_checkpoint(module: nn.Module, path: Path) -> int:
    """Put a checkpoint's weights into `module`, which must have exactly these.

    Returns:
        How many optimizer steps the weights have behind them.

    Raises:
        ChangedFileError: if the file is not what was written.
    """
    check_sealed(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
    return int(state["global_step"])
