"""What a training step of ours costs above a bare PyTorch loop; prints ratios of one run.

    python benchmarks/overhead/run.py          # BERT 12x384 -> 3x384, batch 32 x 64 (W1)
    python benchmarks/overhead/run.py --tiny   # BERT 2x32 -> 1x32, batch 8 x 16

One thread, process CPU time; every round runs all arms, in a rotated order. Printed are the
minimum over rounds of the time per step, and the medians of what is added to the bare loop of the
same round and of the ratio to it. The arms train equal copies of one student on the same random
tokens. The last three compare a hidden state as well, through a trained adapter, and have a bare
loop of their own to be compared with; `Lightning alone` is that loop as a LightningModule which
logs the same values. `Everything on` is a bar, a CSV row every step and a checkpoint, and of ours
metrics and validation (not timed). Peak memory is that of a process of its own for each arm.
"""

import argparse
import copy
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from transformers import BertConfig, BertForSequenceClassification

from lightning_distill import Agreement, DistillationModule, Objective, Term
from lightning_distill.callbacks import FiniteLoss
from lightning_distill.criteria import HardLabel, Hint, SoftTarget


def bert(layers: int, width: int, heads: int) -> BertForSequenceClassification:
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )
    return BertForSequenceClassification(config)


class Tokens(Dataset):
    """Ready batches of random tokens, all rows of full length."""

    def __init__(self, steps: int, rows: int, tokens: int):
        generator = torch.Generator().manual_seed(0)
        self.batches = [
            {
                "input_ids": torch.randint(5, 30000, (rows, tokens), generator=generator),
                "attention_mask": torch.ones(rows, tokens, dtype=torch.long),
                "labels": torch.randint(0, 2, (rows,), generator=generator),
                "row": torch.arange(rows),
            }
            for _ in range(steps)
        ]

    def first(self, count: int) -> list:
        return self.batches[:count]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> dict:
        return self.batches[i]


def optimizer(groups):
    return torch.optim.AdamW(groups, lr=1e-4, fused=True)


def losses(student, teacher, adapter, batch) -> dict:
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        answers = teacher(**inputs, output_hidden_states=adapter is not None)
    outputs = student(**inputs, output_hidden_states=adapter is not None)
    logits, target = outputs.logits, answers.logits
    found = {"hard_label": F.cross_entropy(logits, batch["labels"])}
    found["soft_target"] = 4 * F.kl_div(
        F.log_softmax(logits / 2, -1),
        F.log_softmax(target / 2, -1),
        reduction="batchmean",
        log_target=True,
    )
    if adapter is not None:
        mapped = adapter(outputs.hidden_states[-1])
        found["hint"] = F.mse_loss(mapped, answers.hidden_states[-1])
    return found


def weighted(found: dict):
    return sum(value if name != "soft_target" else 0.9 * value for name, value in found.items())


def bare(student, teacher, loader, hidden: bool = False) -> float:
    student.train()
    teacher.eval().requires_grad_(False)
    adapter = torch.nn.Linear(student.config.hidden_size, teacher.config.hidden_size)
    adapter = adapter if hidden else None
    parameters = [*student.parameters(), *(adapter.parameters() if hidden else [])]
    adamw = optimizer(parameters)
    start = time.process_time()
    for batch in loader:
        loss = weighted(losses(student, teacher, adapter, batch))
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adamw.step()
    return (time.process_time() - start) / len(loader)


class Alone(L.LightningModule):
    """The bare loop's step in Lightning, which logs what ours logs and has nothing else of ours."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, [teacher.eval().requires_grad_(False)]
        self.adapter = torch.nn.Linear(student.config.hidden_size, teacher.config.hidden_size)

    def training_step(self, batch, batch_idx):
        found = losses(self.student, self.teacher[0], self.adapter, batch)
        loss = weighted(found)
        self.log("train/loss", loss, prog_bar=True, batch_size=8)
        self.log_dict({f"train/{n}": v.detach() for n, v in found.items()}, batch_size=8)
        return loss

    def configure_optimizers(self):
        return optimizer(self.parameters())


class Clock(L.Callback):
    """Seconds from the first step to the last; those of validation are not a step's."""

    def on_train_start(self, trainer, pl_module):
        self.start = time.process_time()

    def on_validation_start(self, trainer, pl_module):
        self.paused = time.process_time()

    def on_validation_end(self, trainer, pl_module):
        self.start += time.process_time() - self.paused

    def on_train_end(self, trainer, pl_module):
        self.seconds = time.process_time() - self.start


def ours(student, teacher, loader, everything: bool, hidden: bool = False) -> float:
    logits = {"student": "student.logits", "teacher": "teacher.logits"}
    labels = {"student": "student.logits", "labels": "batch.labels"}
    terms = {
        "hard_label": Term(HardLabel(), labels),
        "soft_target": Term(SoftTarget(2.0), logits, weight=0.9),
    }
    if hidden:
        states = {role: f"{role}.hidden_states[-1]" for role in ("student", "teacher")}
        states["mask"] = "batch.attention_mask"
        terms["hint"] = Term(Hint(), states, adapter="linear")
    objective = Objective(terms)
    metrics = {"accuracy": MulticlassAccuracy(2), "agreement": Agreement()}
    module = DistillationModule(student, teacher, objective, metrics, optimizer)
    return trained(module, loader, everything, hidden, FiniteLoss())


def alone(student, teacher, loader) -> float:
    return trained(Alone(student, teacher), loader, True, True)


def trained(module, loader, everything: bool, hidden: bool, *callbacks) -> float:
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            gradient_clip_val=1.0,
            callbacks=[clock, *callbacks, *([RichProgressBar()] if everything else [])],
            logger=CSVLogger(scratch) if everything else False,
            log_every_n_steps=1 if everything else 50,
            enable_progress_bar=everything,
            enable_model_summary=False,
            enable_checkpointing=hidden,
            num_sanity_val_steps=0,
            default_root_dir=scratch,
        )
        val = DataLoader(loader.dataset.first(2), batch_size=None)
        trainer.fit(module, loader, None if isinstance(module, Alone) else val)
    return clock.seconds / len(loader)


ARMS = {
    "bare loop": bare,
    "ours": partial(ours, everything=False),
    "ours, bar + CSV every step": partial(ours, everything=True),
    "bare loop, hidden states": partial(bare, hidden=True),
    "Lightning alone, everything on": alone,
    "ours, everything on": partial(ours, everything=True, hidden=True),
}


def peak(arm: str, tiny: bool) -> float:
    """Largest resident memory of a process that runs one arm, in megabytes."""
    command = [sys.executable, __file__, "--peak", arm, *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.strip().splitlines()[-1]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # Before anything is built here: a process begins with the peak of the one that started it.
    peaks = {} if options.peak else {name: peak(name, options.tiny) for name in ARMS}
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.manual_seed(0)
    if options.tiny:
        teacher, student, rows, tokens, steps = bert(2, 32, 2), bert(1, 32, 2), 8, 16, 300
    else:
        teacher, student, rows, tokens, steps = bert(12, 384, 12), bert(3, 384, 12), 32, 64, 5
    loader = DataLoader(Tokens(options.steps or steps, rows, tokens), batch_size=None)
    arms = {name: partial(arm, loader=loader) for name, arm in ARMS.items()}
    if options.peak:
        arms[options.peak](student, teacher)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    times: dict[str, list[float]] = {name: [] for name in arms}
    for round_ in range(options.rounds + 1):
        names = list(arms)
        turn = round_ % len(names)
        for name in names[turn:] + names[:turn]:
            seconds = arms[name](copy.deepcopy(student), copy.deepcopy(teacher))
            if round_:  # the first round warms up
                times[name].append(1000 * seconds)
    print(
        f"{'':32}{'min ms':>9}{'+ median':>9}{'ratio':>8}{'median ratio':>14}"
        f"{'range':>16}{'peak':>9}"
    )
    for name, found in times.items():
        same = "hidden" in name or "everything" in name
        base = times["bare loop, hidden states" if same else "bare loop"]
        ratios = sorted(t / b for t, b in zip(found, base, strict=True))
        more = statistics.median(t - b for t, b in zip(found, base, strict=True))
        span = f"{ratios[0]:.3f}..{ratios[-1]:.3f}"
        print(
            f"{name:32}{min(found):9.2f}{more:9.2f}"
            f"{min(found) / min(base):8.3f}{statistics.median(ratios):14.3f}{span:>16}"
            f"{peaks[name]:6.0f} MB"
        )


if __name__ == "__main__":
    main()
