"""A run that is told to stop ends behind its step, with a checkpoint that goes on exactly."""

import os
import signal

import lightning as L
import pytest
import torch
from test_exact_resuming import loaders, Module

from lightning_distill.callbacks import GracefulStop, LastCheckpoint
from lightning_distill.training.distill import fit


class Send(L.Callback):
    """Sends this process a signal at the n-th call of a hook, as often as is said."""

    def __init__(self, hook, count, number, times=1):
        self.left, self.number, self.times = count, number, times
        setattr(self, hook, self.meet)

    def meet(self, trainer, *_):
        self.left -= not trainer.sanity_checking
        while self.left < 0 and self.times:
            self.times -= 1
            os.kill(os.getpid(), self.number)


def run(folder, *callbacks, resume=False, **options):
    last = LastCheckpoint(folder)
    module = Module(optimizer=lambda groups: torch.optim.Adam(groups, lr=0.05))
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, GracefulStop(last), last],
        default_root_dir=folder,
        **{"max_epochs": 3, "num_sanity_val_steps": 1} | options,
    )
    L.seed_everything(0, verbose=False)
    path = folder / "last.ckpt" if resume else None
    fit(
        trainer,
        module,
        train_dataloaders=loaders("shuffled")[0],
        val_dataloaders=loaders("")[1],
        ckpt_path=path,
    )
    return module, trainer


POINTS = [
    ("on_train_batch_start", 1, 2, signal.SIGINT),
    ("on_train_batch_end", 8, 9, signal.SIGTERM),
    ("on_validation_start", 1, 12, signal.SIGINT),
    ("on_train_batch_start", 17, 18, signal.SIGTERM),
]


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    return run(tmp_path_factory.mktemp("uncut"))[0]


@pytest.mark.parametrize(("hook", "count", "steps", "number"), POINTS)
def test_a_stopped_run_goes_on_from_the_end_of_its_step(
    tmp_path, uncut, hook, count, steps, number
):
    handler = signal.getsignal(number)
    _, trainer = run(tmp_path, Send(hook, count, number))
    assert trainer.interrupted and trainer.global_step == steps
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == steps
    assert signal.getsignal(number) == handler
    again, trainer = run(tmp_path, resume=True)
    assert trainer.global_step == 18
    for name, value in uncut.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_step_of_several_batches_is_taken_to_its_end(tmp_path):
    send = Send("on_train_batch_start", 2, signal.SIGTERM)
    first, trainer = run(tmp_path, send, accumulate_grad_batches=2)
    assert trainer.global_step == 2 and len(first.seen) == 4


def test_a_second_signal_ends_the_run_at_once(tmp_path):
    _, trainer = run(tmp_path, Send("on_train_batch_start", 8, signal.SIGINT, times=2))
    assert trainer.interrupted and trainer.global_step == 8
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 6


def test_before_the_first_step_there_is_nothing_to_wait_for(tmp_path):
    send = Send("on_sanity_check_end", 0, signal.SIGTERM)
    send.left = -1
    _, trainer = run(tmp_path, send)
    assert trainer.interrupted and trainer.global_step == 0
    assert not (tmp_path / "last.ckpt").exists()
