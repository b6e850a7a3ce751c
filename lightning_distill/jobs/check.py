"""Look at everything that a training depends on, before hours are spent on it."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, open_dict
from torch.utils.data import DataLoader

from ..check_values import check_boolean, check_number
from ..checks import Finding, Findings, Level
from ..checks.learnt import check_cut, check_learnt
from ..checks.memory import check_memory
from ..checks.pace import size_of
from ..checks.rows import check_rows
from ..checks.sides import check_labels, check_pictures, check_tokenizers
from ..checks.start import check_sizes, check_start, check_temperatures
from ..checks.steps import check_steps, FirstSteps
from ..checks.teacher import check_teacher
from ..data.data import DataFacts
from ..data.some_rows import some_batches
from ..log_lines import saying
from ..metrics.traits import needs_teacher
from ..models.batch import row_count
from ..run.call import group
from ..run.distillation import Distillation, prepare
from ..run.image_processors import own_image_processors
from ..run.memory_on_paper import memory_of, memory_on_paper, UnknownOnPaper
from ..run.objective import build_objective
from ..run.stage import say
from ..run.tokenizers import own_tokenizers
from ..run.trainer import build_module, build_trainer
from ..run.without_keeping import without_keeping
from ..tasks import Task
from ..training.distill import fit
from ..training.transfer import transferred
from ..training.weak_teacher import measure_teacher

ONE_PROCESS = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
QUIET = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
# Training rows of which is counted what is learnt from.
COUNTED = 2000
# Batches whose mean size is that of all.
LOOKED_AT = 64


def check(cfg: DictConfig, rows: int = 256, seconds: float = 2.0, memory: bool = True) -> Findings:
    """Check the run that `cfg` describes; nothing is trained but a teacher that is yet to be.

    Writes `check.json` and `check.md`.

    Args:
        cfg: the configuration of a training, with this job.
        rows: on how many validation rows both models are measured.
        seconds: how long training steps are taken, with models that are thrown away; 0 takes none.
        memory: whether it is predicted how much memory a step takes, before a model is loaded.

    Raises:
        ValueError: if the training would be refused, or would be senseless.
    """
    check_number("job.rows", rows, whole=True, least=1, required=True)
    check_number("job.seconds", seconds, least=0, required=True)
    check_boolean("job.memory", memory)
    findings = Findings()
    try:
        with _heard(findings):
            _look(cfg, rows, seconds, memory, findings)
    except (ValueError, FileNotFoundError) as error:
        found = " ".join(str(error).split())
        findings.add([Finding("refused", "the training", found, Level.WRONG)])
        _write(findings, Path(str(cfg.output_dir)))
        raise
    _write(findings, Path(str(cfg.output_dir)))
    wrong = findings.of(Level.WRONG)
    if wrong:
        names = ", ".join(dict.fromkeys(finding.name for finding in wrong))
        raise ValueError(f"This training would be senseless ({names}): see above what to do.")
    return findings


@contextmanager
def _heard(findings: Findings) -> Iterator[None]:
    """What the owners of data and models warn of is a finding, and not said twice."""

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        found = record.getMessage().rstrip(".")
        findings.add([Finding("said", "data and models", found, Level.WARNING)])
        return False

    with saying(keep):
        yield


@rank_zero_only
def _write(findings: Findings, directory: Path) -> None:
    findings.show()
    findings.save(directory)
    say("Written", f"{directory}: check.json, check.md")


def _look(cfg: DictConfig, rows: int, seconds: float, memory: bool, findings: Findings) -> None:
    with open_dict(cfg):
        # One process looks at what several would do.
        for name, value in ONE_PROCESS.items():
            cfg.trainer[name] = value
    made = prepare(cfg, lambda data: findings.add(_memory(cfg, data) if memory else []))
    made.rehearse()
    stage = made.stages[0]
    train = stage.rows(made.data)
    teacher = without_keeping(made.teacher)
    with stage.trains(made.student):
        objective = build_objective(stage.cfg)
        module = build_module(stage.cfg, made.student, teacher, objective, made.metrics)
        batch = next(iter(train.train_dataloader()))
        module.prepare(batch)
        # No step is one of a training.
        module.is_trying = True
        task = module.task or Task()
        findings.add(check_sizes(made.student, module.taught_by))
        findings.add(check_labels(made.data, made.student, module.taught_by, task))
        findings.add(check_tokenizers(made.data, own_tokenizers(cfg), batch))
        findings.add(check_pictures(made.data, own_image_processors(cfg)))
        findings.add(check_rows(train, made.student, task))
        findings.add(check_cut(made.data))
        counted = some_batches(train, "train", COUNTED)
        findings.add(check_learnt(counted, module, made.data))
        _measure(cfg, made, module, rows, findings)
        if seconds:
            findings.add(_first_steps(stage.cfg, module, train, seconds))


def _memory(cfg: DictConfig, data: Any) -> list[Finding]:
    """What a step will take, before any model is loaded.

    Raises:
        ValueError: if that is more than there is.
    """
    try:
        found, rows = memory_on_paper(cfg, data)
    except UnknownOnPaper as error:
        return [Finding("cost.memory", "memory", f"not predicted: {error}", Level.UNKNOWN)]
    findings = list(check_memory(found, memory_of(cfg), rows))
    for finding in findings:
        if finding.level is Level.WRONG:
            raise ValueError(f"The training takes too much memory: {finding.found}. {finding.do}")
    return findings


class _Looks(L.Callback):
    """What is asked of a module within its trainer, before a test begins."""

    def __init__(self, data: Any, batches: list[Any], findings: Findings):
        self.data, self.batches, self.findings = data, batches, findings
        self.constant: Any = None

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ask the teacher, and read what the terms read."""
        module: Any = pl_module
        if module.taught_by is not None:
            self.constant = measure_teacher(module, self.data, self.batches)
        batch = transferred(module, self.batches[0], self.data)
        with torch.no_grad():
            values, _, _ = module.read_sources(batch, heads="skipped")
        self.findings.add(check_temperatures(module.objective, values))


def _measure(
    cfg: DictConfig, made: Distillation, module: Any, rows: int, findings: Findings
) -> None:
    """Measure both models on some validation rows."""
    first = next(iter(made.data.val_dataloader()), None)
    if first is None:
        return
    # As many at once as in any evaluation.
    # Typed for a loader, to which a list is a data set.
    batches: Any = list(some_batches(made.data, "validation", rows, row_count(first)))
    view = copy.copy(made.data)
    loader: DataLoader[Any] = DataLoader(batches, batch_size=None, collate_fn=_as_it_is)
    view.test_dataloader = lambda: loader
    looks = _Looks(view, batches, findings)
    trainer = build_trainer(cfg, Path(str(cfg.output_dir)), callbacks=[looks], **QUIET)
    trainer.test(module, datamodule=view, verbose=False)
    measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
    task = module.task or Task()
    name = str(cfg.monitor).removeprefix("val/")
    count = sum(map(row_count, batches))
    metric = made.metrics.get(name)
    if module.taught_by is not None:
        findings.add(check_teacher(measured, name, metric, count, looks.constant, task))
    compared = [name for name, metric in made.metrics.items() if needs_teacher(metric)]
    sparse = bool(group(cfg, "sparsity"))
    findings.add(check_start(measured, module.objective, compared, sparse))


def _as_it_is(batch: Any) -> Any:
    return batch


def _first_steps(cfg: DictConfig, module: Any, data: Any, seconds: float) -> list[Finding]:
    """Train a little with what is thrown away, and say what was seen."""
    first = FirstSteps(seconds)
    trainer = build_trainer(
        cfg,
        Path(str(cfg.output_dir)),
        callbacks=[first],
        num_sanity_val_steps=0,
        limit_val_batches=1,
        **QUIET,
    )
    fit(trainer, module, datamodule=data)
    sizes = [size_of(batch) for batch in islice(data.train_dataloader(), LOOKED_AT)]
    return list(check_steps(first, DataFacts(data).num_rows, sum(sizes) / len(sizes)))
