"""Write the teacher's answers to disk once, for all students and epochs to come."""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig
from torch import nn

from ..check_values import check_number
from ..data.data import check_cacheable
from ..models.source import Source
from ..run.cached_teacher import newest_cache
from ..run.data import build_data, check_lengths
from ..run.every_row import check_keyed, every_row
from ..run.learning_rate import settle_training
from ..run.metrics import build_metrics, without_agreement
from ..run.models import build_student, build_teacher
from ..run.objective import build_objective
from ..run.recording import plan_recording, Recording
from ..run.stage import say
from ..run.stage_monitor import settle_stages
from ..run.stage_settings import check_stages
from ..run.stages import Stage, stages_of
from ..run.task import task_in
from ..run.train_stages import rehearse_stages
from ..run.trainer import build_trainer
from ..run.verifying import verify
from ..teachers import CachingTeacher, Teacher
from ..teachers.encodings import encoding_of
from ..teachers.refusals import check_effects, check_encodings
from ..training.module import DistillationModule


def cache(
    cfg: DictConfig,
    run: str | None = None,
    folder: str | None = None,
    mode: str | None = None,
    logits: str = "full",
    dtype: str = "float32",
    hidden_dtype: str = "bfloat16",
    k: int = 64,
    draws: int = 64,
    temperature: float = 1.0,
    batch_size: int = 64,
    shard_mb: float = 64,
    rows: int = 1000,
    tolerance: float = 0.01,
) -> float | None:
    """Write what `cfg.teacher` answers to every row, or compare what was written with it.

    Written are its logits, and what the terms of `cfg.criteria` read of it. Where they read a head
    and what it is given, as FusedLinearDivergence does, the head is written once and logits are
    not. Given again, the command goes on where it was killed. Several ranks (`trainer=ddp`) write
    files side by side.

    Args:
        cfg: the run's configuration.
        run: the directory of a run, of which `cfg` was made.
        folder: where the answers are kept; `answers` in the run's directory by default, and for
            `verify` that of the newest run.
        mode: `write` (the default) or `verify`.
        logits: `full`, or fewer numbers by `top_k` or `sampled`.
        dtype: of logits: `float32`, `bfloat16` or `float16`.
        hidden_dtype: of everything else: these, or `float8`.
        k: how many logits `top_k` keeps.
        draws: how many classes `sampled` draws.
        temperature: at which top-k tails are exact and classes are drawn.
        batch_size: rows that the teacher sees at once.
        shard_mb: megabytes of a file, about.
        rows: how many rows, drawn by `cfg.seed`, `verify` compares.
        tolerance: how far they may be off, as a share of the largest value.

    Returns:
        Of `verify` the largest difference.

    Raises:
        ValueError: for settings that cannot be, for a folder that holds something else, and for
            answers that differ.
    """
    mode = mode or "write"
    if mode not in ("write", "verify"):
        raise ValueError(f"`job.mode` must be write or verify, got {mode!r}.")
    for name, value in (("batch_size", batch_size), ("k", k), ("draws", draws), ("rows", rows)):
        check_number(f"job.{name}", value, whole=True, least=1, required=True)
    for name, number in (("shard_mb", shard_mb), ("temperature", temperature)):
        check_number(f"job.{name}", number, above=0, required=True)
    check_number("job.tolerance", tolerance, least=0, required=True)
    options = (logits, dtype, hidden_dtype, k, draws, float(temperature))
    encoding_of(*options)
    cfg.mode = None
    without_agreement(cfg)
    modules, data, sources = _teacher_and_sources(cfg)
    module = modules[0]
    where = _folder(cfg, folder, mode)
    trainer = _trainer(cfg)
    if mode == "verify":
        return verify(trainer, module, data, where, rows, tolerance, int(cfg.seed))
    check_keyed(data)
    assert module.teacher is not None
    teacher = CachingTeacher(module.teacher, where, *options)
    for one in modules:
        check_encodings(dict(one.objective.terms.items()), teacher.encoding, "this job", "job.")
    check_effects(sources, teacher.options, "this job", "job.")
    batches = every_row(data, batch_size)
    versions = {name: version(name) for name in ("lightning-distill", "torch", "transformers")}
    plan = plan_recording(
        teacher, module, data, sources, batches, str(trainer.precision), shard_mb, versions=versions
    )
    start = time.perf_counter()
    say("Teacher", f"answers {plan.data['rows']:,} rows into {where}")
    recording = Recording(teacher, module, data, sources, plan, batches)
    try:
        trainer.predict(recording)
        # Lightning calls no hook of a rank that has nothing left to do; the others wait for it.
        teacher.end(trainer.strategy.barrier)
    finally:
        teacher.writer.close()
        # Nor any where it is broken off, and the bar would stay.
        recording.teardown("predict")
    recording.say_what_was_kept(time.perf_counter() - start)
    trainer.strategy.barrier()
    return None


def _teacher_and_sources(cfg: DictConfig) -> tuple[list[DistillationModule], Any, list[Source]]:
    """The module of each stage of a run, the data, and what all of them read of the teacher."""
    check_stages(cfg)
    data = build_data(cfg)
    check_cacheable(data, "job=cache")
    metrics = build_metrics(cfg, data)
    settle_stages(cfg, metrics)

    def rehearsal(teacher: nn.Module) -> None:
        student = build_student(cfg, data, teacher)
        rehearse_stages(_stages(cfg, student), data, student, teacher, metrics)

    teacher = build_teacher(cfg, data, rehearsal)
    if not Teacher.of(teacher).is_live:
        raise ValueError(
            "job=cache asks a teacher that is there: teacher=trained, or teacher=pretrained "
            "teacher.path=DIR. The cache is for the runs after it, with teacher=cached."
        )
    student = build_student(cfg, data, teacher)
    check_lengths(data, student=student, teacher=teacher)
    first, task = next(iter(data.train_dataloader())), task_in(cfg)
    modules, sources = [], dict[Source, None]()
    for stage in _stages(cfg, student):
        objective = build_objective(stage.cfg)
        module = DistillationModule(student, teacher, objective, task=task)
        # Pairs the layers: only those that are compared are kept, and with mapping=auto all, of
        # which a run chooses some.
        module.prepare(first, check=False)
        chosen = [s for layers in objective.similar_layers().values() for s in layers.teachers]
        sources |= dict.fromkeys([*objective.sources("teacher"), *chosen])
        modules.append(module)
    predicted = None if task is None else task.predicted_from("teacher", [*sources])
    more = [] if predicted is None or predicted in sources else [predicted]
    return modules, data, [*sources, *more]


def _stages(cfg: DictConfig, student: nn.Module) -> list[Stage]:
    settled = cfg.copy()
    settle_training(settled, student, write=False)
    return stages_of(settled, student)


def _folder(cfg: DictConfig, folder: str | None, mode: str) -> Path:
    if folder is not None:
        return Path(folder)
    if mode == "verify":
        return newest_cache()
    return Path(str(cfg.output_dir)) / "answers"


def _trainer(cfg: DictConfig) -> L.Trainer:
    return build_trainer(
        cfg,
        Path(str(cfg.output_dir)),
        callbacks=[],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        inference_mode=False,
        limit_predict_batches=1.0,
    )
