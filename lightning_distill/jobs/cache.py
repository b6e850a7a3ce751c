"""Write the teacher's answers to disk once, for all students and epochs to come."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from torch import nn, Tensor

from ..cache import (
    Answer,
    AnswerStore,
    DamagedCacheError,
    row_lengths,
    Sampled,
    ShardWriter,
    token_count,
    write_heads,
    write_manifest,
)
from ..cache.answer import signature
from ..cache.row_id import row_ids
from ..cache.store import MANIFEST, PLAN, read_json, whole, write_json
from ..data.data import check_cacheable, DataFacts
from ..models import fingerprint
from ..models.forward import kept_heads, run_model as run
from ..models.head import Head, head_of
from ..models.inputs import input_names
from ..models.source import Source
from ..run.cached_teacher import check_preprocessing, newest_cache
from ..run.check_values import check_number
from ..run.data import build_data, check_lengths
from ..run.every_row import Batch, every_row
from ..run.metrics import build_metrics, without_agreement
from ..run.models import build_student, build_teacher
from ..run.objective import build_objective
from ..run.rehearse import rehearse
from ..run.stage import say
from ..run.task import task_in
from ..run.trainer import build_trainer
from ..teachers import CachedTeacher, CachingTeacher
from ..teachers.answers import about, describe, raw_values, without_last_token
from ..teachers.cached import check_encodings, recall
from ..teachers.encodings import encoding_of
from ..training.module import DistillationModule

# Rows of a file at most: more would be many to write again after a kill.
MOST_ROWS = 262_144


def cache(
    cfg: DictConfig,
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
    encoding = encoding_of(logits, dtype, hidden_dtype, k, draws, temperature)
    cfg.mode = None
    without_agreement(cfg)
    module, data, sources = _teacher_and_sources(cfg)
    terms = dict(module.objective.terms.items())
    check_encodings(terms, encoding, "this job", "job.")
    where = _folder(cfg, folder, mode)
    if mode == "verify":
        return _verify(cfg, module, data, where, rows, tolerance)
    _refuse_unkeyed(data)
    batches = every_row(data, batch_size)
    plan = _plan(cfg, module, data, sources, batches, encoding, shard_mb)
    _check_plan(where, plan)
    writer = CacheWriter(module, data, sources, where, plan, batches)
    start = time.perf_counter()
    trainer = build_trainer(
        cfg,
        Path(str(cfg.output_dir)),
        callbacks=[],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        inference_mode=False,
        limit_predict_batches=1.0,
    )
    if trainer.is_global_zero:
        say("Teacher", f"answers {plan['about']['rows']:,} rows into {where}")
    trainer.predict(writer)
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        heads = _heads(module, sources)
        _finish(where, plan, writer.shard_count, time.perf_counter() - start, heads)
    trainer.strategy.barrier()
    return None


def _teacher_and_sources(cfg: DictConfig) -> tuple[DistillationModule, Any, list[Source]]:
    """The module that runs the teacher, the data, and what is read of the teacher."""
    data = build_data(cfg)
    check_cacheable(data, "job=cache")
    metrics = build_metrics(cfg, data)

    def rehearsal(teacher: nn.Module) -> None:
        student = build_student(cfg, data, teacher)
        rehearse(cfg, data, student, teacher, build_objective(cfg), metrics)

    teacher = build_teacher(cfg, data, rehearsal)
    if isinstance(teacher, CachedTeacher | CachingTeacher):
        raise ValueError(
            "job=cache asks a teacher that is there: teacher=trained, or teacher=pretrained "
            "teacher.path=DIR. The cache is for the runs after it, with teacher=cached."
        )
    objective = build_objective(cfg)
    student = build_student(cfg, data, teacher)
    check_lengths(data, student=student, teacher=teacher)
    module = DistillationModule(student, teacher, objective, task=task_in(cfg))
    # Pairs the layers: only those that are compared are kept.
    module.prepare(next(iter(data.train_dataloader())), check=False)
    return module, data, objective.sources("teacher")


def _heads(module: DistillationModule, sources: Sequence[Source]) -> dict[str, Head]:
    """The teacher's heads that the terms read, by their paths."""
    assert module.teacher is not None
    names = sorted({source.name for source in sources if source.kind == "head"})
    return {name: head_of(module.teacher, name) for name in names}


def _folder(cfg: DictConfig, folder: str | None, mode: str) -> Path:
    if folder is not None:
        return Path(folder)
    if mode == "verify":
        return newest_cache()
    return Path(str(cfg.output_dir)) / "answers"


def _refuse_unkeyed(data: Any) -> None:
    if DataFacts(data).is_streaming:
        raise ValueError(
            "A stream reads its rows anew in each epoch and does not number them, so none could be "
            "found again in a cache. Set data.streaming=false, or use a live teacher."
        )
    if DataFacts(data).draws_anew:
        raise ValueError(
            "Augmentation draws anew in each epoch, and a cache holds what was drawn before. Let "
            "it go round among a number of views: data.views=N, for this job and for the training."
        )


def _plan(
    cfg: DictConfig,
    module: DistillationModule,
    data: Any,
    sources: Sequence[Source],
    batches: Sequence[Batch],
    encoding: Callable[[str], Any],
    shard_mb: float,
) -> dict[str, Any]:
    """What is written, and who answers: two runs with equal plans write equal files."""
    teacher = module.teacher
    assert teacher is not None
    batch = next(iter(data.rows_dataloader(batches[-1:])))
    how = _how(sources)
    module.eval()
    with torch.no_grad():
        outputs, found = run(teacher, module.teacher_forward, batch, sources, how)
        values = raw_values(sources, outputs, found)
        shorter = None
        if (cut := without_last_token(batch)) is not None:
            other, tensors = run(teacher, module.teacher_forward, cut, sources, how)
            shorter = raw_values(sources, other, tensors)
    tokens = token_count(module.teacher_inputs(batch))
    answers = describe(values, shorter, tokens, encoding)
    lengths = [n for each in data.row_lengths().values() for n in each]
    per_row = _bytes_per_row(answers, values, sum(lengths) / max(len(lengths), 1))
    own = input_names(teacher)
    of_teacher = about(teacher, outputs, own, fingerprint(teacher))
    return {
        "about": {
            "teacher": of_teacher,
            "preprocessing": data.preprocessing(),
            "data": data.fingerprint(),
            "rows": sum(len(rows) for _, rows, _ in batches),
            "one_length": len(set(lengths)) == 1,
            "precision": str(cfg.trainer.precision),
            "batch_size": max((len(rows) for _, rows, _ in batches), default=0),
            "rows_per_shard": max(1, min(MOST_ROWS, int(shard_mb * 2**20 / per_row))),
            "bytes_per_row": per_row,
            **({"heads": list(heads)} if (heads := _heads(module, sources)) else {}),
            "versions": {n: version(n) for n in ("lightning-distill", "torch", "transformers")},
        },
        "answers": [answer.settings() for answer in answers],
    }


def _how(sources: Sequence[Source]) -> str:
    """Whether the teacher is to make logits: not where they follow from what is kept."""
    return "skipped" if kept_heads(sources) else "whole"


def _bytes_per_row(answers: Sequence[Answer], values: Mapping[str, Tensor], tokens: float) -> int:
    """About how many bytes a row of so many tokens takes, with its id, its place and checksums."""
    size = 16.0 + 8 + 8 * len(answers) + 24
    for answer in answers:
        one = torch.zeros(1, *answer.shape) if answer.per_token else values[answer.name][:1]
        ids = torch.zeros(1, 2, dtype=torch.long)
        fields = answer.encoding.encode(one.detach().cpu().reshape(1, *answer.shape), ids)
        bytes_ = sum(f.numel() * f.element_size() for f in fields.values())
        size += bytes_ * (tokens if answer.per_token else 1)
    return int(size)


@rank_zero_only
def _check_plan(folder: Path, plan: dict[str, Any]) -> None:
    """Write the plan, or see that what the folder holds was written by the same."""
    path = folder / PLAN
    if path.is_file():
        try:
            before = read_json(path)
        except DamagedCacheError:
            # All that follows is checked against the plan of now.
            before = plan
        differing = _differences(before, plan)
        if differing:
            raise ValueError(
                f"{folder} holds answers that were made otherwise: {'; '.join(differing)}. Name "
                "another folder (job.folder=DIR), or remove this one."
            )
    elif any(folder.glob("shard-*")) or (folder / MANIFEST).is_file():
        raise ValueError(
            f"{folder} holds a cache without its {PLAN}; name another folder (job.folder=DIR), or "
            "remove this one."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(".*.part"):
        # Left by a killed process.
        part.unlink()
    missing = plan["about"]["rows"] * plan["about"]["bytes_per_row"] - sum(
        p.stat().st_size for p in folder.glob("shard-*.safetensors")
    )
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise ValueError(
            f"About {decimal(missing)} are to be written into {folder}, and {decimal(free)} are "
            "free. Make room, name another folder (job.folder=DIR), or keep less: "
            "job.logits=top_k, job.dtype=float16, job.hidden_dtype=float8."
        )
    write_json(path, plan)


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [
            line
            for key in keys
            for line in _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [line for i, (b, n) in pairs for line in _differences(b, n, f"{name}[{i}]")]
    if before == now:
        return []
    return [f"{name} was {_short(before)} and is {_short(now)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


class CacheWriter(L.LightningModule):
    """Runs the teacher over the rows and writes shards; Lightning brings devices and ranks.

    Shard n is written by rank n modulo the number of ranks, in batches that do not depend on them
    nor on what was written before, so that the files are the same however often it was begun.
    """

    def __init__(
        self,
        module: DistillationModule,
        data: Any,
        sources: Sequence[Source],
        folder: Path,
        plan: dict[str, Any],
        batches: Sequence[Batch],
    ):
        super().__init__()
        self.module, self.data, self.sources, self.folder = module, data, list(sources), folder
        self.answers = [Answer.from_settings(a) for a in plan["answers"]]
        self.rows, self.per_row = plan["about"]["rows"], plan["about"]["bytes_per_row"]
        self.shards = list(_shards(batches, plan["about"]["rows_per_shard"]))
        teacher = plan["about"]["teacher"]["fingerprint"]
        self.writer = ShardWriter(folder, self.answers, teacher)
        self.signature = signature(teacher, self.answers)
        # Of every batch that this rank still has to do: the shard that it ends, if it ends one.
        self.ends: list[int | None] = []
        self.progress: Progress | None = None

    @property
    def shard_count(self) -> int:
        """How many files there will be."""
        return len(self.shards)

    def predict_dataloader(self) -> Any:
        """The batches of those shards of this rank that are not written yet."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        todo: list[Batch] = []
        done = 0
        for number, batches in enumerate(self.shards):
            if written(self.folder, number, self.signature) is not None:
                done += sum(len(rows) for _, rows, _ in batches)
            elif number % world == rank:
                todo += batches
                self.ends += [None] * (len(batches) - 1) + [number]
        self._begin_progress(done)
        return self.data.rows_dataloader(todo)

    @rank_zero_only
    def _begin_progress(self, done: int) -> None:
        self.progress = Progress(
            TextColumn("rows"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[size]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        size = decimal(done * self.per_row)
        self.task = self.progress.add_task("rows", total=self.rows, completed=done, size=size)
        self.progress.start()

    @torch.no_grad()
    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Ask the teacher, and write the shard that is full."""
        teacher = self.module.teacher
        assert teacher is not None
        teacher.eval()
        how = _how(self.sources)
        outputs, values = run(teacher, self.module.teacher_forward, batch, self.sources, how)
        inputs = self.module.teacher_inputs(batch)
        ids = row_ids(inputs)
        found = raw_values(self.sources, outputs, values)
        self.writer.add(ids, found, row_lengths(inputs))
        number = self.ends[batch_idx]
        if number is not None:
            facts = self.writer.write(shard_name(number))
            write_json(self.folder / f"{shard_name(number)}.json", facts)
        if self.progress is not None:
            # The others are about as far.
            done = self.progress.tasks[0].completed + len(ids) * self.trainer.world_size
            done = min(done, self.rows)
            size = decimal(int(done * self.per_row))
            self.progress.update(self.task, completed=done, size=size)

    def on_predict_start(self) -> None:
        """Put the teacher on the device."""
        assert self.module.teacher is not None
        self.module.teacher.to(self.device)

    def teardown(self, stage: str) -> None:
        """Leave the console as it was."""
        if self.progress is not None:
            self.progress.stop()


def shard_name(number: int) -> str:
    """The name of a file without its ending."""
    return f"shard-{number:05d}"


def written(folder: Path, number: int, of: str) -> dict[str, Any] | None:
    """The facts of a shard that was written whole; `None` if it is to be written.

    Args:
        folder: of the cache.
        number: of the shard.
        of: the signature of the teacher and of what is kept.
    """
    return whole(folder / f"{shard_name(number)}.safetensors", of)


def _shards(batches: Sequence[Batch], rows_per_shard: int) -> Iterator[list[Batch]]:
    """Batches in groups of about so many rows."""
    group: list[Batch] = []
    count = 0
    for batch in batches:
        group.append(batch)
        count += len(batch[1])
        if count >= rows_per_shard:
            yield group
            group, count = [], 0
    if group:
        yield group


def _finish(
    folder: Path,
    plan: dict[str, Any],
    count: int,
    seconds: float,
    heads: Mapping[str, Head] | None = None,
) -> None:
    answers = [Answer.from_settings(a) for a in plan["answers"]]
    of = signature(plan["about"]["teacher"]["fingerprint"], answers)
    facts = [written(folder, number, of) for number in range(count)]
    missing = [shard_name(i) for i, f in enumerate(facts) if f is None]
    if missing:
        raise ValueError(
            f"{len(missing)} of {count} files were not written ({', '.join(missing[:3])}). Give "
            "the same command again."
        )
    write_manifest(folder, plan["about"], answers, facts, write_heads(folder, heads or {}))
    store = AnswerStore(folder)
    rows = plan["about"]["rows"]
    names = [f"{a.name} ({a.encoding.settings()['kind']})" for a in answers]
    kept = ", ".join([*names, *(f"head:{path} (once)" for path in store.head_names)])
    say("Kept", f"{kept}: {decimal(store.bytes)}, {store.bytes / max(rows, 1):.0f} bytes a row")
    say(
        "Written",
        f"{rows:,} rows in {seconds:.0f} s. Train: teacher=cached teacher.folder={folder}",
    )


def _verify(
    cfg: DictConfig,
    module: DistillationModule,
    data: Any,
    folder: Path,
    rows: int,
    tolerance: float,
) -> float:
    teacher = module.teacher
    assert teacher is not None
    store = AnswerStore(folder)
    damaged = store.check_files()
    if damaged:
        raise ValueError(
            f"{', '.join(damaged[:3])} in {folder} is not what was written. Give the command that "
            "made the cache again: it writes what is damaged."
        )
    made, now = store.about["teacher"]["fingerprint"], fingerprint(teacher)
    if made != now:
        raise ValueError(
            f"{folder} holds the answers of another teacher (fingerprint {made[:12]}, this one is "
            f"{now[:12]})."
        )

    check_preprocessing(store, data)
    everything = [(split, row, view) for split, own, view in every_row(data, 1) for row in own]
    generator = torch.Generator().manual_seed(int(cfg.seed))
    chosen = torch.randperm(len(everything), generator=generator)[:rows].tolist()
    batches = [(everything[i][0], [everything[i][1]], everything[i][2]) for i in sorted(chosen)]
    sources = _sources_of(store, module)
    differences = dict.fromkeys(store.answers, 0.0)
    largest = dict.fromkeys(store.answers, 0.0)
    off: dict[str, float] = {}
    module.eval()
    with torch.no_grad():
        for batch in data.rows_dataloader(batches):
            outputs, values = run(teacher, module.teacher_forward, batch, sources, _how(sources))
            live = raw_values(sources, outputs, values)
            inputs = module.teacher_inputs(batch)
            kept = recall(store, inputs, list(store.answers), batch.get("row"))
            lengths = row_lengths(inputs)
            for name, answer in store.answers.items():
                mine, theirs = _comparable(answer, live[name], kept[name], row_ids(inputs), lengths)
                difference = (mine - theirs).abs()
                differences[name] = max(differences[name], float(difference.max()))
                largest[name] = max(largest[name], float(mine.abs().max()))
                if isinstance(answer.encoding, Sampled):
                    # Shares of draws are off by chance; six standard deviations are not chance.
                    spread = (mine * (1 - mine) / answer.encoding.draws).sqrt()
                    if (difference > 6 * spread + 1 / answer.encoding.draws).any():
                        off[name] = differences[name]
    _show(folder, store, differences, largest, len(batches))
    for name, found in differences.items():
        sampled = isinstance(store.answers[name].encoding, Sampled)
        if not sampled and found > tolerance * max(largest[name], 1e-30):
            off[name] = found
    if off:
        name = next(iter(off))
        raise ValueError(
            f"teacher.{name} differs by {off[name]:.3g} from the live teacher, of "
            f"values up to {largest[name]:.3g}; job.tolerance allows a share of {tolerance}. Was "
            "the cache made in another precision? Make it anew."
        )
    return max(differences.values())


def _sources_of(store: AnswerStore, module: DistillationModule) -> list[Source]:
    """A source for each answer, and for each head."""
    names = [*store.answers, *(f"head:{path}" for path in store.head_names)]
    return [Source.parse(f"teacher.{name}") for name in names]


def _comparable(
    answer: Answer, live: Tensor, kept: Tensor, ids: Any, lengths: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    """Both as a cache gives them; drawn classes as probabilities."""
    if answer.per_token:
        assert lengths is not None
        inside = torch.arange(kept.shape[1]) < torch.tensor(lengths)[:, None]
        live, kept = live.cpu()[inside], kept.cpu()[inside]
        marks = torch.zeros(len(live), 2, dtype=torch.long)
    else:
        marks = torch.from_numpy(ids.copy())
    if isinstance(answer.encoding, Sampled):
        temperature = answer.encoding.temperature
        return (live.float() / temperature).softmax(-1).cpu(), (kept / temperature).exp().cpu()
    fields = answer.encoding.encode(live.cpu(), marks)
    mine = answer.encoding.decode(fields, answer.shape)
    kept = kept.cpu()
    # Classes that the teacher rules out are so in both.
    both = mine.isinf() & kept.isinf()
    return mine.masked_fill(both, 0.0), kept.masked_fill(both, 0.0)


@rank_zero_only
def _show(
    folder: Path,
    store: AnswerStore,
    differences: Mapping[str, float],
    largest: Mapping[str, float],
    rows: int,
) -> None:
    table = Table(title=f"{rows} of {len(store):,} rows of {folder} and the live teacher")
    for head in ("answer", "kept as", "largest difference", "largest value"):
        table.add_column(head, justify="left" if head in ("answer", "kept as") else "right")
    for name, answer in store.answers.items():
        settings = answer.encoding.settings()
        kind = " ".join(str(settings[key]) for key in ("kind", "dtype") if key in settings)
        table.add_row(name, kind, f"{differences[name]:.3g}", f"{largest[name]:.3g}")
    Console().print(table)
