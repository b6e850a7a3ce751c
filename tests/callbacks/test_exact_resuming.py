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
from lightning_distill.callbacks import BestCheckpoint, LastCheckpoint, LastValidation
from lightning_distill.callbacks.random_state import random_state, set_random_state
from lightning_distill.criteria import HardLabel, Hint, SoftTarget
from lightning_distill.data.length_grouped import LengthGroupedBatches
from lightning_distill.sealed import write_sealed

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
    """Rows with noise, as augmentations draw it; not Python's, which beartype draws from too."""

    def __len__(self):
        return ROWS

    def __getitem__(self, i):
        if isinstance(i, tuple | list):
            i = list(getattr(i, "rows", i))
            return torch.utils.data.default_collate([self[j] for j in i])
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(WIDTH, generator=generator)
        noise = torch.rand(()).item() + np.random.rand()
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
            "hard_label": Term(
                HardLabel(), {"student": "student.logits", "labels": "batch.labels"}
            ),
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
    best = BestCheckpoint(
        folder, filename="best-{step}", monitor="wave", mode="min", enable_version_counter=False
    )
    more = options.pop("more", list)()
    last = (last or LastCheckpoint)(folder)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Kill(hook, count), *more, LastValidation(), best, last],
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
    steps = [t.fit_loop.epoch_loop._batches_that_stepped for t in (trainer, resumed)]
    assert steps[0] == steps[1]  # the steps in metrics.csv
    assert Path(best.best_model_path).name == Path(resumed_best.best_model_path).name
    states = [
        torch.load(p, weights_only=True)
        for p in (best.best_model_path, resumed_best.best_model_path)
    ]
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name]), name
    # Nothing that was finished is done again.
    return len(first.seen) + len(again.seen) - len(whole.seen)


POINTS = [
    ("on_train_batch_start", 9),
    ("on_train_epoch_end", 2),
]
MORE_POINTS = [
    ("on_train_batch_end", 5),
    ("on_train_batch_end", 15),
    ("on_validation_start", 2),
    ("on_validation_end", 1),
    ("on_train_epoch_start", 1),
    ("on_train_end", 0),
    # Of runs that their steps end within the fourth epoch.
    ("on_validation_start", 3),
    ("on_validation_end", 3),
    ("on_train_epoch_end", 3),
]
SETTINGS = {
    "epochs": {},
    "shuffled": {"kind": "shuffled"},
    "stream": {"kind": "stream"},
    "steps": {"max_steps": 20},
    "steps, several epochs of them": {"max_steps": 17, "max_epochs": -1},
    "half epochs": {"val_check_interval": 0.5},
    "half epochs, shuffled, steps": {"val_check_interval": 3, "kind": "shuffled", "max_steps": 20},
    "as the student alone": {
        "max_steps": 20,
        "val_check_interval": 5,
        "check_val_every_n_epoch": None,
    },
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
    "seldom validated": {"check_val_every_n_epoch": 2},
    "stopped early": {"more": lambda: [EarlyStopping("wave", patience=1)], "max_epochs": 9},
}


QUICK = ("epochs", "shuffled", "stream", "accumulation")


@pytest.fixture(
    scope="module",
    params=[n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SETTINGS],
)
def setting(request, tmp_path_factory):
    options = SETTINGS[request.param]
    return options, run(tmp_path_factory.mktemp("uncut"), **options)


@pytest.mark.parametrize(
    ("hook", "count"),
    [*POINTS, *(pytest.param(*point, marks=pytest.mark.slow) for point in MORE_POINTS)],
)
def test_a_run_that_was_cut_off_ends_like_one_that_was_not(tmp_path, setting, hook, count):
    options, uncut = setting
    check(uncut, tmp_path / "cut", hook, count, **options)


@pytest.mark.slow
def test_workers_read_the_right_epoch_too(tmp_path):
    options = {"workers": 2, "max_epochs": 3}
    check(run(tmp_path / "whole", **options), tmp_path / "cut", "on_train_batch_end", 13, **options)


class Remembering(DataLoader):
    """A loader that keeps its own place, as those with a `state_dict` do."""

    place = 0

    def __iter__(self):
        return self.rest(super().__iter__())

    def rest(self, batches):
        start, self.place = self.place, 0
        for number, batch in enumerate(batches):
            if number < start:
                continue
            self.place = number + 1
            yield batch
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def test_a_loader_that_keeps_its_own_place_is_left_to_it(tmp_path, monkeypatch):
    import sys

    def own(kind, workers=0):
        plain = [
            Noisy.__getitem__(Noisy(), list(range(i, min(i + 4, ROWS)))) for i in range(0, ROWS, 4)
        ]
        return Remembering(plain, batch_size=None), DataLoader(Noisy(), batch_size=8)

    monkeypatch.setattr(sys.modules[__name__], "loaders", own)
    options = {"last": lambda folder: LastCheckpoint(folder, every_n_train_steps=1)}
    check(run(tmp_path / "whole", **options), tmp_path / "cut", "on_train_batch_end", 8, **options)


def test_a_checkpoint_between_two_batches_of_a_step_is_said_to_be_inexact(tmp_path, caplog):
    def within(folder):
        return ModelCheckpoint(folder, filename="last", enable_version_counter=False)

    options = {
        "last": within,
        "accumulate_grad_batches": 2,
        "val_check_interval": 3,
        "check_val_every_n_epoch": None,
    }
    run(tmp_path, "on_train_batch_end", 4, **options)
    run(tmp_path, resume=True, **options)
    assert "after 1 of the 2 batches of a step, and their gradients are not in it" in caplog.text


@pytest.mark.slow
def test_other_processes_are_said_to_be_inexact(tmp_path, caplog):
    run(tmp_path, "on_train_epoch_start", 1)
    path = tmp_path / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["exact_resuming"]["processes"] *= 2
    write_sealed(path, lambda file: torch.save(saved, file))
    run(tmp_path, resume=True)
    assert "was written by 2 processes, and 1 go on" in caplog.text


def test_a_checkpoint_of_an_older_version_goes_on_too(tmp_path):
    run(tmp_path, "on_train_batch_end", 14)
    path = tmp_path / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    del saved["exact_resuming"]
    write_sealed(path, lambda file: torch.save(saved, file))
    again, trainer, _ = run(tmp_path, resume=True)
    assert trainer.global_step == 24 and again.seen[0][:2] == (2, 0)


@pytest.mark.slow
def test_a_moved_folder_keeps_its_best(tmp_path):
    _, _, best = run(tmp_path / "whole")
    run(tmp_path / "cut", "on_train_epoch_start", 3)
    (tmp_path / "cut").rename(tmp_path / "moved")
    _, _, found = run(tmp_path / "moved", resume=True)
    assert Path(found.best_model_path) == tmp_path / "moved" / Path(best.best_model_path).name
    assert found.best_model_score == best.best_model_score
    assert sorted(p.name for p in (tmp_path / "moved").iterdir()) == sorted(
        p.name for p in (tmp_path / "whole").iterdir()
    )


def test_the_state_of_every_generator_is_kept(tmp_path):
    def drawn():
        return [random.random(), random.gauss(0, 1), *np.random.rand(3), *torch.rand(3).tolist()]

    np.random.randn()
    state = random_state(torch.device("cpu"))
    torch.save(state, tmp_path / "state")
    expected = drawn()
    set_random_state(torch.load(tmp_path / "state", weights_only=True), torch.device("cpu"))
    assert drawn() == expected


def test_every_n_train_steps_is_at_least_1():
    with pytest.raises(ValueError, match="`every_n_train_steps` must be at least 1, got 0"):
        LastCheckpoint(every_n_train_steps=0)
