"""How many collectives a training step takes on two processes; prints a table.

    python benchmarks/overhead/collectives.py

The objective is [hard_label, soft_target, hint over 12 layers], two processes on gloo, and every
function of `torch.distributed` that processes wait in is counted by who called it. What DDP does
to average the gradients calls none of them, and is not counted.
"""

import argparse
import os
import socket
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import lightning as L
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.utils.data import DataLoader

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel, Hint, SoftTarget

FUNCTIONS = ("all_reduce", "all_gather", "broadcast", "reduce", "all_gather_object", "barrier")
LAYERS, WIDTH, CLASSES = 12, 16, 3
INSIDE = "criteria (and balance)"
COUNTS = "how much counts in the step"
LOGGING = "what is logged"


class Layers(nn.Module):
    """A stack of linear layers that returns its hidden states."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        hidden_states = []
        for layer in self.layers:
            x = layer(x).tanh()
            hidden_states.append(x)
        return {"logits": self.head(x), "hidden_states": tuple(hidden_states)}


def caller() -> str:
    """Which part of the package waits, by the innermost of its files on the stack."""
    for frame in reversed(traceback.extract_stack()):
        if "lightning_distill/criteria" in frame.filename or "balance" in frame.filename:
            return INSIDE
        if frame.name in ("_open", "_count"):
            return COUNTS
        if "lightning_distill/training" in frame.filename:
            return LOGGING
    return "Lightning itself"


def counted(function, found: Counter):
    def wrapper(*args, **kwargs):
        found[caller()] += 1
        return function(*args, **kwargs)

    return wrapper


def objective() -> Objective:
    logits = {"student": "student.logits", "teacher": "teacher.logits"}
    layers = {"student": "student.hidden_states[*]", "teacher": "teacher.hidden_states[*]"}
    labels = {"student": "student.logits", "labels": "batch.labels"}
    return Objective(
        {
            "hard_label": Term(HardLabel(), labels),
            "soft_target": Term(SoftTarget(), logits),
            "hint": Term(Hint(), layers),
        }
    )


class Counting(L.Callback):
    """Counts from the second step on: the first has what DDP does once."""

    def __init__(self):
        self.found: Counter = Counter()
        self.at: list[Counter] = []

    def on_train_batch_start(self, *_):
        self.at.append(self.found.copy())

    def on_train_batch_end(self, *_):
        self.at[-1] = self.found - self.at[-1]


def worker(rank: int, folder: str, port: int, accumulate: int) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "collectives",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    counting = Counting()
    for name in FUNCTIONS:
        function = counted(getattr(torch.distributed, name), counting.found)
        setattr(torch.distributed, name, function)
    generator = torch.Generator().manual_seed(rank)
    batches = [
        {
            "x": torch.randn(rows, WIDTH, generator=generator),
            "labels": torch.randint(0, CLASSES, (rows,), generator=generator),
        }
        for rows in (4, 3, 2, 4, 1, 2)
    ]
    module = DistillationModule(Layers(), Layers(), objective())
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        strategy="ddp",
        devices=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        accumulate_grad_batches=accumulate,
        default_root_dir=folder,
    )
    trainer.callbacks.append(counting)
    trainer.fit(module, DataLoader(batches, batch_size=None))
    torch.save(counting.at, f"{folder}/{rank}.pt")


def main() -> None:
    """Print how many collectives one optimizer step took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--accumulate", type=int, default=1)
    accumulate = parser.parse_args().accumulate
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(worker, (folder, port, accumulate), nprocs=2, start_method="spawn")
        at = torch.load(Path(folder) / "0.pt", weights_only=False)
    step = sum(at[-accumulate:], Counter())
    print(f"Collectives of one optimizer step, accumulate_grad_batches={accumulate}:\n")
    print("| for | collectives |")
    print("|---|--:|")
    for name in (INSIDE, COUNTS, LOGGING, "Lightning itself"):
        print(f"| {name} | {step[name]} |")


if __name__ == "__main__":
    main()
