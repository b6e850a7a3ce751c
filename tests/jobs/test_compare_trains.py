"""job=compare that trains its runs: seeds, learning rates and a control, also after a kill."""

import json
import statistics
from pathlib import Path

import pytest
from killed_runs import kill_at, WITH_STOP, write_stop
from texts_on_disk import call_in, write_tsv

pytest.importorskip("scipy", reason="pip install 'lightning-distill[compare]'")
pytestmark = pytest.mark.slow

OPTIONS = ["data=text_files", "data.train=rows.tsv", "data.validation=rows.tsv"]
OPTIONS += ["data.test=rows.tsv", "data.batch_size=12", "student=from_teacher", "student.layers=1"]
OPTIONS += ["teacher=pretrained", "teacher.path=teacher", "trainer.accelerator=cpu"]
OPTIONS += ["trainer.log_every_n_steps=1", "trainer.max_epochs=2"]
COMPARE = ["job=compare", "job.seeds=[0,3]", "job.learning_rates=[1e-6,1e-2]", *OPTIONS]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    write_tsv(folder, 2)
    write_stop(folder)
    call_in(folder, *COMPARE, WITH_STOP, "hydra.run.dir=whole")
    return folder


def result(run: Path) -> dict:
    (line,) = json.loads((run / "compare.json").read_text())["settings"]
    # Where it lies, and what a stopwatch says.
    return {name: value for name, value in line.items() if name not in ("runs", "costs")}


def of_run(work: Path, seed: int, rate: str, student: str) -> dict:
    run = work / "whole" / "runs" / f"seed{seed}_lr{rate}"
    return json.loads((run / "report.json").read_text())[student]


def test_its_figures_are_those_of_its_runs(work):
    line, rates = result(work / "whole"), {1e-6: "1e-06", 1e-2: "0.01"}
    assert line["seeds"] == [0, 3]
    for name, student in (("alone", "baseline"), ("distilled", "student"), ("control", "control")):
        rows = {
            rate: [of_run(work, seed, text, student) for seed in (0, 3)]
            for rate, text in rates.items()
        }
        means = {r: statistics.fmean(row["validation"] for row in own) for r, own in rows.items()}
        rate = line["learning_rates"][name]
        assert means[rate] == max(means.values())
        assert line[name] == [row["metrics"]["accuracy"] for row in rows[rate]]


def test_a_run_says_what_it_was_and_holds_three_trainings(work):
    run = work / "whole" / "runs" / "seed3_lr0.01"
    record = json.loads((run / "run.json").read_text())["typed"]
    assert record["seed"] == 3 and record["optimizer"]["lr"] == 0.01 and record["control"]
    assert record["job"] == {"_target_": "lightning_distill.jobs.distill"}
    for folder in (run, run / "baseline", run / "control"):
        assert (folder / "result.json").is_file()
    assert "taught other rows" in (run / "report.md").read_text()


def test_killed_and_resumed_it_ends_with_the_same_table(work):
    # A run has 12 batches in its three trainings: this is in the control of the second run.
    kill_at(work, 18, *COMPARE, WITH_STOP, "hydra.run.dir=killed")
    done = work / "killed" / "runs" / "seed0_lr1e-06"
    assert (done / "report.json").is_file()
    assert not (work / "killed" / "runs" / "seed0_lr0.01" / "report.json").exists()
    before = {path: path.stat().st_mtime_ns for path in done.glob("*.*")}
    call_in(work, "resume=killed")
    assert result(work / "killed") == result(work / "whole")
    # What had ended was not begun again.
    assert before == {path: path.stat().st_mtime_ns for path in before}
    for one in sorted((work / "whole" / "runs").iterdir()):
        same = work / "killed" / "runs" / one.name / "student" / "model.safetensors"
        assert same.read_bytes() == (one / "student" / "model.safetensors").read_bytes()


def refused(work: Path, capsys, *options: str) -> str:
    with pytest.raises(SystemExit):
        call_in(work, "job=compare", "job.seeds=2", *OPTIONS, *options, "hydra.run.dir=refused")
    assert not (work / "refused" / "runs" / "seed0" / "checkpoints").exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["job.runs=whole"], "job.seeds trains runs, and job.runs names some"),
        (["job.seeds=0"], "job.seeds must be at least 1, got 0"),
        (["job.seeds=[1,1]"], "`job.seeds` must be seeds that differ, got [1, 1]"),
        (["job.learning_rates=[0]"], "job.learning_rates must be positive, got 0"),
        (["job.learning_rates=[0.1,0.1]"], "must be rates that differ"),
        (
            ["job.learning_rates=[1e-3]", "stages=[{optimizer: {lr: 1e-4}}]"],
            "Each of the stages has a learning rate of its own (0.0001), so job.learning_rates",
        ),
        (["trainer=ddp", "trainer.devices=2"], "job=compare trains in one process"),
        (["criteria=[hard_label]"], "no term reads one"),
        (["data.batch_size=1"], "a batch has one row. Write data.batch_size=2"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_first_step(work, capsys, options, words):
    assert words in " ".join(refused(work, capsys, *options).split())


def test_without_a_teacher_there_is_nothing_to_compare(work, capsys):
    options = [o for o in OPTIONS if not o.startswith(("teacher", "student"))]
    with pytest.raises(SystemExit):
        call_in(work, "job=compare", "job.seeds=2", "~teacher", *options, "hydra.run.dir=refused")
    assert "there is none: choose one, as in teacher=pretrained" in capsys.readouterr().err


def test_more_seeds_are_trained_and_those_there_are_stay(work, capsys):
    options = ["job=compare", "job.control=false", *OPTIONS, "hydra.run.dir=more"]
    call_in(work, *options, "job.seeds=1")
    before = (work / "more" / "runs" / "seed0" / "report.json").stat().st_mtime_ns
    call_in(work, "resume=more", "job.seeds=2")
    line = result(work / "more")
    assert line["seeds"] == [0, 1] and line["control"] is None and line["p"] is not None
    assert (work / "more" / "runs" / "seed0" / "report.json").stat().st_mtime_ns == before
    with pytest.raises(SystemExit):
        call_in(work, "resume=more", "trainer.max_epochs=9")
    said = " ".join(capsys.readouterr().err.split())
    assert "Only more seeds may be given: the run has job.seeds=2" in said


def test_runs_of_an_earlier_comparison_are_not_taken_for_those_that_are_asked_for(work, capsys):
    before = {path: path.stat().st_mtime_ns for path in (work / "whole").rglob("*.json")}
    with pytest.raises(SystemExit):
        call_in(work, *COMPARE, "job.alpha=0.1", "hydra.run.dir=whole")
    said = " ".join(capsys.readouterr().err.split())
    assert "holds runs of an earlier comparison" in said and "Go on with them by resume=" in said
    kept = {p: p.stat().st_mtime_ns for p in before if p.parts[-2] != "whole"}
    assert all(before[path] == time for path, time in kept.items())


def test_without_a_label_there_is_no_student_alone(work, capsys):
    (work / "bare.tsv").write_text("text\tlabel\n" + "a good film\t\na bad film\t\n" * 12)
    said = refused(work, capsys, "data.train=bare.tsv")
    assert "no training row has a label: give some rows one" in " ".join(said.split())
