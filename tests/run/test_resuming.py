"""Which run is gone on with, and what is refused in words."""

import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_distill.cache.lock import _process
from lightning_distill.main import _made, run_dir
from lightning_distill.newest_run import newest_run, runs_in
from lightning_distill.run import resuming
from lightning_distill.run.directory import open_run
from lightning_distill.run.resuming import as_typed, go_on, same_run, why_not_ended, write_record

SETTINGS = {"seed": 0, "resume": None, "output_dir": "x", "trainer": {"max_epochs": 3}}


def made(folder: Path, ended=False, checkpoint=True, **changes) -> Path:
    """A run's directory, as far as it is read by who goes on with it."""
    (folder / "checkpoints").mkdir(parents=True)
    cfg = OmegaConf.create(SETTINGS | changes)
    write_record(folder, as_typed(cfg), OmegaConf.to_yaml(cfg))
    if checkpoint:
        (folder / "checkpoints" / "last.ckpt").touch()
    if ended:
        for name in ("report.json", "result.json"):
            (folder / name).write_text("{}")
    return folder


@pytest.fixture
def given(monkeypatch):
    """Sets what is typed beside `resume`."""

    class Config:
        overrides = OmegaConf.create({"task": ["resume=x"]})
        runtime = OmegaConf.create({"config_sources": []})

    monkeypatch.setattr(resuming.HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(resuming.HydraConfig, "get", lambda: Config)
    return Config.overrides.task.append


def test_the_newest_run_of_the_same_configuration_that_has_not_ended(tmp_path):
    typed = as_typed(OmegaConf.create(SETTINGS | {"output_dir": "elsewhere", "resume": "auto"}))
    assert same_run(typed, tmp_path) is None
    made(tmp_path / "other", seed=1)
    assert same_run(typed, tmp_path) is None
    old, cut, ended = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    for age, run in enumerate((made(ended, ended=True), made(cut), made(old))):
        os.utime(run / "config.yaml", (100 - age, 100 - age))
    assert same_run(typed, tmp_path) == cut
    for run in (cut, old):
        (run / "report.json").touch()
    assert same_run(typed, tmp_path) == ended
    (ended / "run.json").write_text("{")
    assert same_run(typed, tmp_path) == cut


def test_a_run_keeps_the_command_that_it_began_with(tmp_path, given):
    given("'a=b c'")
    record = json.loads((made(tmp_path / "run") / "run.json").read_text())
    assert record["command"] == """lightning-distill resume=x ''"'"'a=b c'"'"''"""


@pytest.mark.parametrize("typed", ["seed=1", "trainer.max_epochs=2", "trainer.max_epochs=x"])
def test_what_may_not_be_given_is_refused_with_what_may(tmp_path, given, typed):
    run = made(tmp_path / "run", ended=True)
    before = sorted((p, p.read_bytes()) for p in run.iterdir() if p.is_file())
    given(typed)
    words = f"leave out {typed}, or start a new run.*Only more epochs or steps.*max_epochs=3"
    with pytest.raises(ValueError, match=words):
        go_on(run, auto=False)
    assert sorted((p, p.read_bytes()) for p in run.iterdir() if p.is_file()) == before


def test_a_run_in_stages_has_a_budget_for_each_and_gets_no_more_epochs(tmp_path, given):
    run = made(tmp_path / "run", ended=True, stages=[{"criteria": ["hint"]}])
    given("trainer.max_epochs=5")
    with pytest.raises(ValueError, match="has stages, each with a budget of its own, so it cannot"):
        go_on(run, auto=False)
    assert (run / "result.json").is_file()


def test_what_a_run_has_learnt_so_far_may_lie_in_a_stage(tmp_path):
    run = made(tmp_path / "run", checkpoint=False)
    assert "before it learnt" in why_not_ended_with_error(run)
    stage = run / "stages" / "layers" / "checkpoints"
    stage.mkdir(parents=True)
    (stage / "last.ckpt").touch()
    assert resuming.checkpoint_folders(run) == [stage]
    assert "go on with" in why_not_ended_with_error(run)


def why_not_ended_with_error(run: Path) -> str:
    (run / "error.txt").write_text("ValueError: no")
    return why_not_ended(run)


def test_more_epochs_make_a_finished_run_one_that_has_not_ended(tmp_path, given):
    run = made(tmp_path / "run", ended=True)
    given("trainer.max_epochs=5")
    assert go_on(run, auto=False).trainer.max_epochs == 5
    assert not (run / "result.json").exists() and not (run / "report.json").exists()
    assert OmegaConf.load(run / "config.yaml").trainer.max_epochs == 5
    # Given again, as by a process of the same run, there is nothing to change.
    (run / "result.json").touch()
    assert go_on(run, auto=False).trainer.max_epochs == 5
    assert (run / "result.json").exists()


def test_a_kill_before_the_new_configuration_is_written_is_no_edit(tmp_path, given, monkeypatch):
    run = made(tmp_path / "run", ended=True)
    given("trainer.max_epochs=5")
    replace = os.replace

    def killed(aside, path):
        if Path(path).name == "config.yaml":
            raise KeyboardInterrupt
        replace(aside, path)

    monkeypatch.setattr(resuming.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        go_on(run, auto=False)
    monkeypatch.setattr(resuming.os, "replace", replace)
    assert go_on(run, auto=False).trainer.max_epochs == 5


def test_a_finished_run_without_a_checkpoint_cannot_have_more_epochs(tmp_path, given):
    run = made(tmp_path / "run", ended=True, checkpoint=False)
    given("trainer.max_epochs=5")
    with pytest.raises(ValueError, match="no checkpoints/last.ckpt to go on from"):
        go_on(run, auto=False)
    assert (run / "result.json").exists()


def test_an_edited_configuration_is_refused_with_what_was_edited(tmp_path):
    run = made(tmp_path / "run")
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 7"))
    with pytest.raises(
        ValueError, match=r"was edited since the run began \(seed: 7\).*Undo the edit"
    ):
        go_on(run, auto=False)


def test_paths_hold_from_where_the_run_began(tmp_path, monkeypatch):
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir(), away.mkdir()
    monkeypatch.chdir(home)
    run = made(home / "run")
    monkeypatch.chdir(away)
    before = [*sys.path]
    go_on(run, auto=False)
    # A file of the run must not say where code is found.
    assert Path.cwd() == home and sys.path == before
    # A run that was copied to another machine.
    record = json.loads((run / "run.json").read_text()) | {"folder": str(tmp_path / "gone")}
    (run / "run.json").write_text(json.dumps(record))
    go_on(run, auto=False)
    assert Path.cwd() == home


@pytest.mark.parametrize(
    ("error", "checkpoint", "words"),
    [
        (None, True, "has not ended: go on with resume="),
        ("Traceback\nValueError: no such column", False, "failed before .*no such column.*new run"),
        ("Traceback\nRuntimeError: NaN", True, "has failed: RuntimeError: NaN .*resume="),
    ],
)
def test_what_became_of_a_run_without_a_report(tmp_path, error, checkpoint, words):
    run = made(tmp_path / "run", checkpoint=checkpoint)
    if error is not None:
        (run / "error.txt").write_text(error)
    assert re.search(words, why_not_ended(run))


def test_two_processes_cannot_have_one_run(tmp_path):
    run = made(tmp_path / "run")
    (run / "writing.lock").write_text(json.dumps(_process(os.getppid()) | {"key": "theirs"}))
    cfg = OmegaConf.create(SETTINGS | {"resume": str(run)})
    words = "writes into .* now. Wait until it ends, or start another run"
    with pytest.raises(ValueError, match=words), open_run(cfg):
        raise AssertionError


def test_of_many_that_come_at_once_each_makes_a_folder_of_its_own(tmp_path):
    found = []
    start = threading.Barrier(8)

    def make():
        start.wait()
        found.append(_made(tmp_path / "runs", "now"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*found}) == 8 and all(Path(p).is_dir() for p in found)


def test_a_run_keeps_its_folder_wherever_its_configuration_is_copied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lightning-distill"])
    root = OmegaConf.create({"dir": "${run_dir:null,distill}", "other": "${run_dir:null,distill}"})
    copied = root.copy()
    OmegaConf.copy_cache(root, copied)
    first = root.dir
    OmegaConf.copy_cache(root, copied)
    assert root.other == copied.dir == first
    assert len(list(Path("runs/distill").iterdir())) == 1
    assert run_dir(None, "distill", _root_=OmegaConf.create({})) != first


def test_a_trial_of_a_search_is_no_run_of_its_own(tmp_path):
    for age, name in enumerate(("search", "search/trials/000", "sweep/0")):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
        os.utime(tmp_path / name / "config.yaml", (100 + age, 100 + age))
    assert {*runs_in(tmp_path)} == {tmp_path / "search", tmp_path / "sweep/0"}
    assert newest_run(tmp_path / "search", "checkpoints") == tmp_path / "search"
