"""Another model is trained for as many steps and validations, whatever the epochs."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_distill.callbacks import ExactResuming
from lightning_distill.run.budget import batch_count, EvenlySpaced, same_budget, Validations


class Counts(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch):
        return self.layer(batch).mean()

    def validation_step(self, batch):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(rows: int, callbacks, **options) -> L.Trainer:
    options = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"} | options
    trainer = L.Trainer(
        callbacks=callbacks, enable_progress_bar=False, enable_model_summary=False, **options
    )
    loaders = [DataLoader(torch.zeros(n, 1)) for n in (rows, 2)]
    trainer.fit(Counts(), *loaders)
    return trainer


FIRST = [
    {"max_epochs": 3},
    {"max_epochs": 6, "limit_train_batches": 2},
    {"max_epochs": 2, "val_check_interval": 0.5},
    {"max_steps": 3},
    {"max_epochs": 4, "check_val_every_n_epoch": 2},
    {"max_epochs": 3, "accumulate_grad_batches": 4},
    {"max_epochs": 2, "limit_val_batches": 0},
    {"max_epochs": 2, "overfit_batches": 3},
    {"max_epochs": 2, "overfit_batches": 0.5},
    {"max_epochs": 3, "limit_train_batches": 0.5},
    {"max_epochs": 2, "limit_val_batches": 1},
    {"max_epochs": 2, "val_check_interval": 2},
    {"max_epochs": 3, "val_check_interval": 4, "check_val_every_n_epoch": None},
    {"max_steps": 13, "max_epochs": -1, "accumulate_grad_batches": 3},
    {"max_epochs": 4, "num_sanity_val_steps": 0, "check_val_every_n_epoch": 3},
    {"max_epochs": 3, "num_sanity_val_steps": -1},
    {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1},
    {"min_epochs": 2, "max_epochs": 3},
    {"min_steps": 25, "max_epochs": 3},
    {"max_epochs": 2, "max_time": {"hours": 1}},
    {"fast_dev_run": True},
    {"fast_dev_run": 3},
]


@pytest.mark.parametrize("settings", FIRST, ids=lambda s: "-".join(s))
@pytest.mark.parametrize("rows", [3, 10, 23])
def test_as_many_steps_and_validations(settings, rows):
    count = Validations()
    first = fit(10, [count], **settings)
    budget = same_budget(first.global_step, count.count, same_rows=False)
    again = Validations()
    callbacks = [again, *budget.pop("more_callbacks", [])]
    second = fit(rows, callbacks, **settings | budget)
    assert second.global_step == first.global_step
    assert again.count == count.count
    # An epoch that is not ended is not validated either, and the other training must not do so.
    unfinished = settings.get("max_steps") == 3
    assert (count.count == 0) == (settings.get("limit_val_batches") == 0 or unfinished)


class Stops(L.Callback):
    """Ends a training as early stopping does, after some steps."""

    def __init__(self, after: int):
        self.after = after

    def on_validation_end(self, trainer, module):
        if trainer.global_step >= self.after:
            trainer.should_stop = True


@pytest.mark.parametrize("same_rows", [True, False])
def test_what_would_end_it_early_does_not(same_rows):
    count, again = Validations(), Validations()
    first = fit(10, [count, Stops(30)], max_epochs=6)
    assert first.global_step == 30
    budget = same_budget(first.global_step, count.count, same_rows)
    callbacks = [again, *budget.pop("more_callbacks", []), Stops(2)]
    second = fit(10, callbacks, **{"max_epochs": 6, "max_time": {"seconds": 0}} | budget)
    assert (second.global_step, again.count) == (30, count.count)


def test_the_same_rows_are_trained_on_under_the_same_settings():
    expected = {"max_steps": 7, "min_steps": 7, "max_time": None}
    assert same_budget(7, 3, same_rows=True) == expected


@pytest.mark.parametrize("accumulated", [1, 3, 4])
@pytest.mark.parametrize("epoch", [1, 3, 10])
def test_steps_take_as_many_batches_as_lightning_gives_them(epoch, accumulated):
    for steps in (1, 4, 7):
        batches, taken = 0, 0
        while taken < steps:
            batches += 1
            place = (batches - 1) % epoch + 1
            taken += place % accumulated == 0 or place == epoch
        assert batch_count(steps, epoch, accumulated) == batches
    assert batch_count(5, float("inf"), accumulated) == 5 * accumulated


def test_the_last_validation_is_at_the_end_and_the_others_are_evenly_spaced():
    seen = []

    class Notes(L.Callback):
        def on_validation_end(self, trainer, module):
            seen.append(trainer.global_step)

    fit(5, [EvenlySpaced(4, 14), Notes()], max_steps=14, max_epochs=-1, val_check_interval=1,
        check_val_every_n_epoch=None, num_sanity_val_steps=0)  # fmt: skip
    assert seen == [4, 7, 11, 14]


def test_a_resumed_training_goes_on_counting():
    count = Validations()
    count.load_state_dict({"count": 3})
    assert count.state_dict() == {"count": 3}


class Noisy(Counts):
    def training_step(self, batch):
        return self.layer(torch.rand_like(batch)).square().mean()


class Cut(L.Callback):
    def __init__(self, path, batch):
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == self.batch:
            trainer.save_checkpoint(self.path)
            raise KeyError("cut")


def noisy(*callbacks, path=None, rows=8):
    options = same_budget(8, 2, same_rows=False)
    options |= {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    options |= {"enable_progress_bar": False, "enable_model_summary": False}
    validations = Validations()
    more = [*options.pop("more_callbacks"), ExactResuming(), *callbacks]
    trainer = L.Trainer(callbacks=[validations, *more], **options)
    L.seed_everything(0, verbose=False)
    module = Noisy()
    loaders = [DataLoader(torch.zeros(n, 1), batch_size=1) for n in (rows, 2)]
    trainer.fit(module, *loaders, ckpt_path=path)
    return module.layer.weight.item(), validations.count, trainer.global_step


class CutBehindValidation(L.Callback):
    def __init__(self, path, number):
        self.path, self.left = path, number

    def on_validation_end(self, trainer, module):
        self.left -= not trainer.sanity_checking
        if self.left == 0:
            trainer.save_checkpoint(self.path)
            raise KeyError("cut")


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("rows", [4, 8])
def test_a_training_that_was_cut_behind_a_validation_ends_like_one_that_was_not(
    tmp_path, number, rows
):
    uncut = noisy(rows=rows)
    assert uncut[1:] == (2, 8)
    with pytest.raises(KeyError, match="cut"):
        noisy(CutBehindValidation(tmp_path / "cut.ckpt", number), rows=rows)
    assert noisy(path=tmp_path / "cut.ckpt", rows=rows)[::2] == uncut[::2]


@pytest.mark.parametrize("batch", [0, 1, 4, 6])
def test_a_training_that_was_cut_ends_like_one_that_was_not(tmp_path, batch):
    uncut = noisy()
    assert uncut[1:] == (2, 8)
    with pytest.raises(KeyError, match="cut"):
        noisy(Cut(tmp_path / "cut.ckpt", batch))
    assert noisy(path=tmp_path / "cut.ckpt") == uncut
