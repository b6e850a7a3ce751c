"""Taggers and readers: samples per second of distillation, against transformers' Trainer.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/tokens/run.py --tokenizer DIR

FOLDER holds `snips/train` and `xquad/xquad.en.json`. DIR holds a tokenizer of BERT. Every arm
trains an equal student on the same rows with the same loss, in a process of its own on one thread.
Every round runs all arms in a rotated order. Before that, all arms must find the same loss on the
same batch.
"""

import argparse
import json
import logging
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import nn, Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForTokenClassification,
    get_linear_schedule_with_warmup,
    Trainer,
    TrainingArguments,
)

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel, SoftTarget
from lightning_distill.data import QuestionFiles, TokenFiles
from lightning_distill.main import main as command
from lightning_distill.tasks import task_of
from lightning_distill.teachers import CachedTeacher

HERE = Path(__file__).parent
HARD, SOFT, TEMPERATURE, BATCH, RATE = 0.1, 0.9, 4.0, 32, 1e-4
# A question is read with its context, which takes about twenty times as long as a sentence.
QUARTER = 4
LAYERS = {"teacher": 12, "student": 3}
TASKS = {"slots": BertForTokenClassification, "questions": BertForQuestionAnswering}
ARMS = ("trainer", "trainer_grouped", "live", "cached")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True, help="folder of a tokenizer of BERT")
    parser.add_argument("--rows", type=int, default=1920, help="sentences; a quarter of questions")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(work(json.loads(options.arm))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        found = {task: compare(task, options, Path(scratch) / task) for task in TASKS}
    found["cpu"] = processor()
    (HERE / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found)


def compare(task: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    # Few rows make one batch, which is the same for all.
    folders = scratch / "first", scratch / "all"
    rows = [write_rows(task, n, f) for n, f in zip((24, options.rows), folders, strict=True)][1]
    first, given = (
        {"task": task, "scratch": str(folder), "tokenizer": options.tokenizer} for folder in folders
    )
    losses = [in_a_process({**first, "arm": arm})["loss"] for arm in ARMS]
    if max(losses) - min(losses) > 1e-5:
        sys.exit(f"{task}: the arms find other losses on one batch: {losses}")
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    work: dict[str, float] = {}
    for number in range(options.rounds):
        for arm in ARMS[number % len(ARMS) :] + ARMS[: number % len(ARMS)]:
            done = in_a_process({**given, "arm": arm, "seed": number})
            seconds[arm].append(done["seconds"])
            work[arm] = done["work"]
            print(f"{task}, round {number}: {arm} {done['seconds']:.1f} s", flush=True)
    return {"rows": rows, "tokens": done["tokens"], "seconds": seconds, "work": work}


def in_a_process(given: dict[str, Any]) -> dict[str, Any]:
    words = [sys.executable, __file__, "--tokenizer", "", "--arm", json.dumps(given)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


# What all arms are given.


def write_rows(task: str, count: int, scratch: Path) -> int:
    scratch.mkdir(parents=True)
    source = Path(os.environ.get("LIGHTNING_DISTILL_DATA", ""))
    if not (source / "snips" / "train" / "seq.in").is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds snips/ and xquad/.")
    if task == "slots":
        (scratch / "train").mkdir()
        for name in ("seq.in", "seq.out"):
            lines = (source / "snips" / "train" / name).read_text().splitlines(keepends=True)
            (scratch / "train" / name).write_text("".join(lines[:count]))
        return count
    articles = json.loads((source / "xquad" / "xquad.en.json").read_text())["data"]
    left = count // QUARTER
    for article in articles:
        for paragraph in article["paragraphs"]:
            paragraph["qas"] = paragraph["qas"][: max(left, 0)]
            left -= len(paragraph["qas"])
    kept = [{**a, "paragraphs": [p for p in a["paragraphs"] if p["qas"]]} for a in articles]
    kept = [article for article in kept if article["paragraphs"]]
    (scratch / "train.json").write_text(json.dumps({"data": kept}))
    return count // QUARTER


def read_rows(given: dict[str, Any]) -> Any:
    options = {"tokenizer": given["tokenizer"], "batch_size": BATCH}
    scratch = given["scratch"]
    seed = given.get("seed", 0)
    if given["task"] == "slots":
        train = f"{scratch}/train"
        data = TokenFiles(train=train, validation=train, max_length=64, seed=seed, **options)
    else:
        train = f"{scratch}/train.json"
        data = QuestionFiles(train=train, validation=train, seed=seed, **options)
    data.setup("fit")
    return data


def model(given: dict[str, Any], layers: int, classes: int) -> nn.Module:
    """Random weights: what a step costs does not depend on them."""
    torch.manual_seed(layers)
    sizes = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(num_hidden_layers=layers, num_labels=classes, **sizes, **still)
    made = TASKS[given["task"]](config)
    if layers == LAYERS["teacher"]:
        # With opinions, or else a soft loss that is missing or wrong would hardly show.
        list(made.children())[-1].weight.data.mul_(20)
    return made


def listed(data: Any) -> list[dict[str, Tensor]]:
    """Every training row by itself, tokenised and without padding."""
    plan = [("train", [i], None) for i in range(len(data.splits["train"]))]
    rows = data.rows_dataloader(plan, num_workers=0)
    return [{name: value[0] for name, value in row.items() if name != "row"} for row in rows]


# The arms.


def padded(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    fill = {"labels": -100}
    return {
        name: torch.stack([row[name] for row in rows])
        if rows[0][name].dim() == 0 or (name == "labels" and len(rows[0][name]) == 2)
        else pad_sequence([row[name] for row in rows], True, fill.get(name, 0))
        for name in rows[0]
        if name != "window"
    }


def mean_of_both(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The loss of logits `(rows, classes)`."""
    p = F.softmax(teacher / TEMPERATURE, dim=-1)
    q = F.log_softmax(student / TEMPERATURE, dim=-1)
    soft = F.kl_div(q, p, reduction="batchmean")
    return HARD * F.cross_entropy(student, labels) + SOFT * TEMPERATURE**2 * soft


class Distillation(Trainer):
    def __init__(self, *args: Any, teacher: nn.Module, **options: Any):
        super().__init__(*args, **options)
        self.teacher = teacher.eval()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, mask = inputs.pop("labels"), inputs.pop("answer_mask", None)
        inputs.pop("word_mask", None)
        with torch.no_grad():
            target = self.teacher(**inputs)
        outputs = model(**inputs)
        if mask is None:
            counted = labels != -100
            logits = outputs.logits[counted], target.logits[counted]
            self.last = mean_of_both(*logits, labels[counted])
            return self.last
        ends = []
        for end, place in zip(("start_logits", "end_logits"), labels.unbind(1), strict=True):
            both = (one[end].masked_fill(mask == 0, -1e4) for one in (outputs, target))
            ends.append(mean_of_both(*both, place))
        self.last = sum(ends) / 2
        return self.last


def trainer(given: dict[str, Any], data: Any, models: Any, grouped: bool) -> Tensor:
    arguments = TrainingArguments(
        output_dir=given["scratch"],
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=RATE,
        weight_decay=0.01,
        warmup_steps=0.1,
        max_grad_norm=1.0,
        train_sampling_strategy="group_by_length" if grouped else "random",
        seed=given.get("seed", 0),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
    student, teacher = models
    rows = given["rows"]
    runner = Distillation(
        student, arguments, data_collator=padded, train_dataset=rows, teacher=teacher
    )
    runner.train()
    return runner.last


def ours(given: dict[str, Any], data: Any, models: Any) -> Tensor:
    inputs = {"student": "student.logits", "labels": "batch.labels"}
    both = {"student": "student.logits", "teacher": "teacher.logits"}
    task = task_of(data)
    terms = {
        "hard_label": Term(HardLabel(), inputs, weight=HARD),
        "soft_target": Term(SoftTarget(TEMPERATURE), both, weight=SOFT),
    }

    def schedule(optimizer: Any, num_training_steps: int) -> Any:
        warm_up = math.ceil(0.1 * num_training_steps)
        return get_linear_schedule_with_warmup(optimizer, warm_up, num_training_steps)

    module = DistillationModule(
        *models,
        Objective(task.terms(terms)),
        optimizer=partial(torch.optim.AdamW, lr=RATE, weight_decay=0.01, fused=True),
        scheduler=schedule,
        task=task,
    )
    runner = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=given["scratch"],
    )
    runner.fit(module, datamodule=data)
    return runner.callback_metrics["train/loss"]


def work(given: dict[str, Any]) -> dict[str, Any]:
    """What one process does: an arm from rows in memory to a trained student."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_distill"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if given["arm"] == "cached":
        write_cache(given)
    data = read_rows(given)
    classes = data.num_labels or 2
    student, teacher = (model(given, LAYERS[one], classes) for one in ("student", "teacher"))
    given["rows"] = listed(data)
    tokens = statistics.mean(len(row["input_ids"]) for row in given["rows"])
    warm_up(student, teacher, given["rows"])
    done = count_work(student, teacher)
    of_ours: Any = teacher
    if given["arm"] == "cached":
        of_ours = CachedTeacher(f"{given['scratch']}/kept")
    start = time.process_time()
    if given["arm"].startswith("trainer"):
        loss = trainer(given, data, (student, teacher), given["arm"] == "trainer_grouped")
    else:
        loss = ours(given, data, (student, of_ours))
    seconds = time.process_time() - start
    return {"loss": float(loss), "seconds": seconds, "tokens": tokens, "work": sum(done)}


def count_work(student: nn.Module, teacher: nn.Module) -> list[float]:
    """Tokens times layers that are computed, in passes forward; a backward counts two.

    Padding is computed too, so it counts. Without anything else that costs time, the ratio of two
    arms' work would be the ratio of their speeds.
    """
    done: list[float] = []

    def count(one: nn.Module, args: Any, kwargs: Any) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        passes = 3 if torch.is_grad_enabled() else 1
        done.append(ids.numel() * one.config.num_hidden_layers * passes)

    for one in (student, teacher):
        one.register_forward_pre_hook(count, with_kwargs=True)
    return done


def warm_up(student: nn.Module, teacher: nn.Module, rows: list[dict[str, Tensor]]) -> None:
    """What the first forward and backward cost more is paid before the clock starts."""
    batch = padded(rows[:4])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        teacher(**inputs)
    sum(value.sum() for value in student(**inputs).values()).backward()
    student.zero_grad()


def write_cache(given: dict[str, Any]) -> None:
    """The teacher's answers to all rows, by the command; once, and not counted."""
    scratch = Path(given["scratch"])
    if (scratch / "kept" / "manifest.json").is_file():
        return
    data = read_rows(given)
    teacher = model(given, LAYERS["teacher"], data.num_labels or 2)
    task_of(data).write_labels(teacher.config, data.num_labels, data.label_names)
    teacher.save_pretrained(scratch / "teacher")
    data.tokenizer.save_pretrained(scratch / "teacher")
    kind, train = ("token_files", "train") if given["task"] == "slots" else (
        "question_files", "train.json")  # fmt: skip
    sys.argv = [
        *("lightning-distill", "job=cache", f"job.folder={scratch}/kept", f"data={kind}"),
        *(f"data.train={scratch}/{train}", f"data.validation={scratch}/{train}"),
        *(f"data.tokenizer={given['tokenizer']}", "teacher=pretrained"),
        *(f"teacher.path={scratch}/teacher", "student=from_teacher", "student.layers=1"),
        *("trainer.accelerator=cpu", f"hydra.run.dir={scratch}/run"),
        *(["data.max_length=64"] if given["task"] == "slots" else []),
    ]
    command()


def processor() -> str:
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return names[0].split(":")[1].strip() if names else platform.processor()


def show(found: dict[str, Any]) -> None:
    print(f"\n{found['cpu']}; CPU seconds, least of the rounds; in brackets the ratios of rounds")
    for task in TASKS:
        own = found[task]
        print(f"\n{task}: {own['rows']} rows, {own['tokens']:.0f} tokens on average\n")
        print("| arm | samples/s | of `trainer` | of `trainer_grouped` | work saved |")
        print("|---|--:|--:|--:|--:|")
        for arm, seconds in own["seconds"].items():
            cells = [f"{own['rows'] / min(seconds):.1f}"]
            for peer in ("trainer", "trainer_grouped"):
                of_peer = own["seconds"][peer]
                each = [a / b for a, b in zip(of_peer, seconds, strict=True)]
                ratio = min(of_peer) / min(seconds)
                cells.append(f"{ratio:.2f} [{min(each):.2f}, {max(each):.2f}]")
            cells.append(f"{own['work']['trainer'] / own['work'][arm]:.2f}")
            print(f"| `{arm}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
