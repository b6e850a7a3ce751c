"""What is told to the other processes of a run, and what is taken from them."""

from itertools import groupby

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel
from tiny import trainer

from lightning_distill.callbacks import LastCheckpoint
from lightning_distill.error_message import leave
from lightning_distill.run import live_processes
from lightning_distill.run.live_processes import explained_by_others, LiveProcesses


class Recorded:
    """Stands for the heartbeat of a run of several processes."""

    def __init__(self, cause=None):
        self.calls, self.cause = [], cause

    def __getattr__(self, name):
        return lambda: self.calls.append(name)

    def explain(self, error):
        return self.cause or error


@pytest.fixture
def heart(monkeypatch):
    made = Recorded()
    monkeypatch.setattr(live_processes, "_heartbeat", made)
    return made


class Saves(L.Callback):
    def __init__(self, heart):
        self.heart, self.seen = heart, {}

    def on_validation_epoch_end(self, *_):
        self.seen["validated"] = self.heart.calls[-1]

    def on_save_checkpoint(self, *_):
        self.seen.setdefault("saved", self.heart.calls[-1])

    def on_train_epoch_end(self, *_):
        self.seen["ended"] = self.heart.calls[-1]


def test_batches_are_steps_and_all_that_may_take_long_is_a_pause(tmp_path, heart):
    live, saves = LiveProcesses(45, tmp_path / "error.txt"), Saves(heart)
    made = trainer(tmp_path, limit_train_batches=4, limit_val_batches=2, enable_checkpointing=True)
    made.callbacks[:] = [live, saves, LastCheckpoint(tmp_path, every_n_train_steps=1)]
    made.fit(BoringModel())
    calls = [name for name, _ in groupby(heart.calls)]
    assert calls[0] == "pause" and calls[-1] == "pause"
    assert calls.count("step") == 4 + 2
    assert calls[1:4] == ["begin", "advance", "step"]
    assert saves.seen == dict.fromkeys(["validated", "saved", "ended"], "pause")


def test_one_process_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(live_processes, "_heartbeat", None)
    live = LiveProcesses(45, tmp_path / "error.txt")
    trainer(tmp_path, limit_train_batches=1, callbacks=[live]).fit(BoringModel())
    assert live_processes._heartbeat is None


def test_what_another_process_met_first_is_raised_in_the_place_of_what_followed(heart):
    heart.cause = ValueError("the label 7 is none")
    followed = RuntimeError("Connection closed by peer")
    with pytest.raises(ValueError, match="the label 7 is none") as error, explained_by_others():
        raise followed
    assert error.value.__cause__ is followed
    heart.cause = None
    with pytest.raises(RuntimeError, match="closed by peer"), explained_by_others():
        raise followed


def test_the_others_are_told_of_a_good_end_and_of_a_users_stop(heart):
    with explained_by_others():
        pass
    assert heart.calls == ["done"]
    with pytest.raises(KeyboardInterrupt), explained_by_others():
        raise KeyboardInterrupt
    assert heart.calls == ["done", "stop"]


@pytest.mark.parametrize("name", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_processes_of_a_single_fit_are_left_alone(name):
    class Strategy:
        strategy_name = name

    assert not live_processes._lasts(Strategy())
    Strategy.strategy_name = "ddp"
    assert live_processes._lasts(Strategy())


def test_the_cause_comes_first_in_its_file(tmp_path):
    assert leave("cause\n", tmp_path / "run" / "error.txt")
    assert leave("consequence\n", tmp_path / "run" / "error.txt")
    assert (tmp_path / "run" / "error.txt").read_text() == "cause\nconsequence\n"
    assert not leave("cause\n", tmp_path / "run" / "error.txt" / "below")
