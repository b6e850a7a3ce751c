"""A fit that was cut off anywhere and goes on ends with the weights of one that was not."""

import random
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.callbacks import BestCheckpoint, LastCheckpoint
from lightning_distill.criteria import HardLabel, Hint, SoftTarget
from lightning_distill.data.length_grouped import LengthGroupedBatches

ROWS, WIDTH, CLASSES = 23, 4, 3
LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}


class Killed(Exception):
    pass


class Student(nn.Module):
    def __init__(self, width: int, dropout: float = 0.3):
        super().__init__()
        self.inner = nn.Linear(WIDTH, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        return {"logits": self.head(self.dropout(self.inner(x)))}


class Noisy(Dataset):
    """Rows with noise of all three generators, as augmentations draw it."""

    def __len__(self):
        return ROWS

    def __getitem__(self, i):
        if isinstance(i, tuple | list):
            i = list(getattr(i, "rows", i))
            return torch.utils.data.default_collate([self[j] for j in i])
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(WIDTH, generator=generator)
        noise = torch.rand(()).item() + random.random() + np.random.rand()
        return {"x": x + 0.1 * noise, "labels": torch.tensor(i % CLASSES), "row": torch.tensor(i)}


class Stream(IterableDataset):
    def __iter__(self):
        for start in range(0, ROWS, 4):
            yield Noisy()[list(range(start, min(start + 4, ROWS)))]


class Module(DistillationModule):
    """Notes what it trains on; its plateau looks at a value that goes up and down."""

    def __init__(self, **options):
        torch.manual_seed(0)
        student, teacher = Student(3), Student(5)
        terms = {
            "hard_label": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"}),
            "soft_target": Term(SoftTarget(), LOGITS),
            "hint": Term(
                Hint(),
                {"student": "student.layer:inner", "teacher": "teacher.layer:inner"},
                adapter="linear",
            ),
        }
        super().__init__(student, teacher, Objective(terms), **options)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch["row"].tolist()))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("wave", torch.tensor(float((self.global_step * 7) % 5)))


class Kill(L.Callback):
    """Raises at the n-th call of a hook."""

    def __init__(self, hook: str, count: int):
        self.left = count
        if hook:
            setattr(self, hook, self.meet)

    def meet(self, trainer, *_):
        if trainer.sanity_checking:
            return
        self.left -= 1
        if self.left < 0:
            raise Killed


def loaders(kind: str, workers: int = 0):
    if kind == "grouped":
        sampler = LengthGroupedBatches((np.arange(ROWS) % 7 + 1), 4)
        train = DataLoader(Noisy(), sampler=sampler, batch_size=None, num_workers=workers)
    elif kind == "stream":
        train = DataLoader(Stream(), batch_size=None)
    else:
        train = DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=workers)
    return train, DataLoader(Noisy(), batch_size=8)


def plateau(optimizer):
    return {
        "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5),
        "monitor": "wave",
        "interval": "epoch",
    }


def run(folder, hook="", count=0, resume=False, kind="grouped", workers=0, last=None, **options):
    """One process of a run; `hook` says where it is cut off."""
    options = {"max_epochs": 4, "num_sanity_val_steps": 1} | options
    module = Module(
        optimizer=lambda groups: torch.optim.Adam(groups, lr=0.05),
        scheduler=options.pop("scheduler", plateau),
    )
    best = BestCheckpoint(folder, filename="best-{step}", monitor="wave", mode="min", enable_version_counter=False)
    more = options.pop("more", list)()
    last = (last or LastCheckpoint)(folder)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Kill(hook, count), *more, best, last],
        default_root_dir=folder,
        **options,
    )
    L.seed_everything(0, verbose=False)
    path = folder / "last.ckpt"
    again = resume and path.is_file()
    try:
        trainer.fit(module, *loaders(kind, workers), ckpt_path=path if again else None)
    except Killed:
        assert hook
    return module, trainer, best


def check(uncut, folder, hook, count, **options):
    """The run that was cut off there, against the one that was not."""
    whole, trainer, best = uncut
    first, *_ = run(folder, hook, count, **options)
    again, resumed, resumed_best = run(folder, resume=True, **options)
    # What was trained on, without what was lost and trained on again.
    place = {(epoch, batch): rows for epoch, batch, rows in first.seen}
    for epoch, batch, rows in again.seen:
        assert place.setdefault((epoch, batch), rows) == rows, (epoch, batch)
    assert place == {(epoch, batch): rows for epoch, batch, rows in whole.seen}
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert trainer.global_step == resumed.global_step
    assert trainer.current_epoch == resumed.current_epoch
    assert Path(best.best_model_path).name == Path(resumed_best.best_model_path).name
    states = [torch.load(p, weights_only=True) for p in (best.best_model_path, resumed_best.best_model_path)]
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name]), name
    # Nothing that was finished is done again.
    return len(first.seen) + len(again.seen) - len(whole.seen)


POINTS = [
    ("on_train_batch_start", 9),
    ("on_train_batch_end", 5),
    ("on_train_batch_end", 15),
    ("on_validation_start", 2),
    ("on_validation_end", 1),
    ("on_train_epoch_start", 1),
    ("on_train_epoch_end", 2),
    ("on_train_end", 0),
]
SETTINGS = {
    "epochs": {},
    "shuffled": {"kind": "shuffled"},
    "stream": {"kind": "stream"},
    "steps": {"max_steps": 20},
    "steps, several epochs of them": {"max_steps": 17, "max_epochs": -1},
    "half epochs": {"val_check_interval": 0.5},
    "half epochs, shuffled, steps": {"val_check_interval": 3, "kind": "shuffled", "max_steps": 20},
    "as the student alone": {"max_steps": 20, "val_check_interval": 5, "check_val_every_n_epoch": None},
    "as the student alone, by the epoch": {
        "max_steps": 20,
        "val_check_interval": 6,
        "check_val_every_n_epoch": None,
    },
    "accumulation": {"accumulate_grad_batches": 4},
    "accumulation, validated within": {
        "accumulate_grad_batches": 2,
        "val_check_interval": 3,
        "check_val_every_n_epoch": None,
        "max_steps": 9,
    },
    "every step": {"last": lambda folder: LastCheckpoint(folder, every_n_train_steps=1)},
    "every other step, accumulated": {
        "last": lambda folder: LastCheckpoint(folder, every_n_train_steps=1),
        "accumulate_grad_batches": 2,
        "kind": "shuffled",
    },
    "stream, every step": {
        "last": lambda folder: LastCheckpoint(folder, every_n_train_steps=1),
        "kind": "stream",
        "max_steps": 19,
    },
    "seldom validated": {"check_val_every_n_epoch": 2},
    "stopped early": {"more": lambda: [EarlyStopping("wave", patience=1)], "max_epochs": 9},
}


@pytest.fixture(scope="module", params=SETTINGS)
def setting(request, tmp_path_factory):
    options = SETTINGS[request.param]
    return options, run(tmp_path_factory.mktemp("uncut"), **options)


@pytest.mark.parametrize(("hook", "count"), POINTS)
def test_a_run_that_was_cut_off_ends_like_one_that_was_not(tmp_path, setting, hook, count):
    options, uncut = setting
    check(uncut, tmp_path / "cut", hook, count, **options)
