"""Runs of the command that are stopped, killed or started twice, beside one that was left alone."""

import json
import os
import threading
from pathlib import Path

import pytest
import torch
from processes import run_program
from texts_on_disk import write_tsv

pytestmark = pytest.mark.slow

PROGRAM = "from lightning_distill.main import main\n\nmain()\n"
# Sends a signal to its own process at the n-th training batch that the process sees.
STOP = """
import os
import lightning as L


class Stop(L.Callback):
    seen = 0

    def on_train_batch_end(self, trainer, *_):
        self.seen += 1
        batch, number = map(int, os.environ.get("STOP", "0 0").split())
        if self.seen == batch:
            os.kill(os.getpid(), number)
"""
ARGUMENTS = [
    "data=text_files",
    "data.train=rows.tsv",
    "data.validation=rows.tsv",
    "data.test=rows.tsv",
    "data.batch_size=6",
    "teacher=pretrained",
    "teacher.path=teacher",
    "student.hidden_size=16",
    "student.num_attention_heads=2",
    "student.intermediate_size=16",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "baseline=false",
    "+callbacks.stop._target_=stop.Stop",
]


@pytest.fixture
def work(tmp_path):
    write_tsv(tmp_path, 2)
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "stop.py").write_text(STOP)
    return tmp_path


def command(work, *arguments, stop="0 0", folder=None):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "STOP": stop, "COLUMNS": "200"}
    # The package and its tests.
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    return run_program(work / "program.py", arguments, folder or work, env)


def equal(found, expected):
    if isinstance(expected, torch.Tensor):
        return torch.equal(found, expected)
    if isinstance(expected, dict):
        # Seconds are no part of it.
        names = [name for name in expected if name not in ("WallTime", "loops")]
        return found.keys() == expected.keys() and all(equal(found[n], expected[n]) for n in names)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(equal, found, expected))
    return found == expected


def test_stopped_killed_and_resumed_from_elsewhere_ends_as_if_left_alone(work):
    assert command(work, *ARGUMENTS, "hydra.run.dir=whole").returncode == 0
    first = command(work, *ARGUMENTS, "resume=auto", stop="2 2")
    assert first.returncode == 130 and "is a new one" in first.stdout
    (run,) = (work / "runs" / "distill").iterdir()
    assert f"Go on with: lightning-distill resume={run}" in first.stdout
    # In its first epoch; the third of its four steps ended.
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    second = command(work, *ARGUMENTS, "resume=auto", stop="2 9")
    assert second.returncode == -9 and not (run / "report.json").exists()
    third = command(work, *ARGUMENTS, "resume=auto", stop="4 15")
    assert third.returncode == 130 and f"{run} goes on" in third.stdout
    (work / "elsewhere").mkdir()
    (work / "stop.py").rename(work / "elsewhere" / "stop.py")
    last = command(work, f"resume={run}", folder=work / "elsewhere")
    assert last.returncode == 0, last.stderr
    assert f"paths hold from {work}" in last.stdout
    (work / "elsewhere" / "stop.py").rename(work / "stop.py")
    assert (run / "metrics.csv").read_text() == (work / "whole" / "metrics.csv").read_text()
    states = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        for folder in (run, work / "whole")
    ]
    assert equal(*states)
    ends = [json.loads((folder / "result.json").read_text()) for folder in (run, work / "whole")]
    assert ends[0] | {"seconds": 0} == ends[1] | {"seconds": 0}
    seconds = states[0]["callbacks"]["WallTime"]["seconds"]
    assert ends[0]["seconds"] >= seconds > 0
    # Nothing is left to do; with more epochs there is.
    again = command(work, *ARGUMENTS, "resume=auto")
    assert again.returncode == 0 and f"{run} has ended" in again.stdout
    more = command(work, f"resume={run}", "trainer.max_epochs=4")
    assert more.returncode == 0, more.stderr
    assert json.loads((run / "result.json").read_text())["steps"] == 16
    steps = [line.split(",")[1] for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == sorted(steps, key=int) and steps.count("12") == 1


def at_once(*calls):
    done = []
    threads = [threading.Thread(target=lambda c=call: done.append(c())) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def test_what_is_started_at_one_instant_shares_no_folder(work):
    short = [*ARGUMENTS, "trainer.max_steps=1"]
    sweeps = [
        lambda s=s: command(work, "-m", *short, f"optimizer.lr={s}") for s in ("1e-3,-1", "2e-3,-2")
    ]
    done = at_once(*sweeps)
    for one in done:
        # One member of each fails, and is named; the other runs.
        assert one.returncode == 1 and one.stderr.count("a run of the sweep has failed") == 1
    found = sorted((work / "runs" / "sweep").glob("*/0/report.json"))
    assert len(found) == 2
    assert command(work, *ARGUMENTS, "hydra.run.dir=cut", stop="2 9").returncode == -9
    codes = sorted(one.returncode for one in at_once(*[lambda: command(work, "resume=cut")] * 2))
    # Where one was done before the other began, that one found a run that has ended.
    assert codes in ([0, 1], [0, 0]) and (work / "cut" / "report.json").is_file()
    if codes == [0, 1]:
        assert "Wait until it ends" in (work / "cut" / "resume_error.txt").read_text()
    assert not (work / "cut" / "error.txt").exists()
