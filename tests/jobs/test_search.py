"""A search over small students: what it writes, what it keeps, and how it goes on after a kill."""

import csv
import json
import shlex
from pathlib import Path

import pytest
from killed_runs import kill_at, WITH_STOP, write_stop
from texts_on_disk import call_in, write_tsv
from tiny import bert
from transformers import AutoConfig

pytest.importorskip("optuna", reason="pip install 'lightning-distill[search]'")
pytestmark = pytest.mark.slow

DATA = ["data=text_files", "data.train=rows.tsv", "data.validation=rows.tsv", "data.test=rows.tsv"]
OPTIONS = [*DATA, "data.batch_size=12", "teacher=pretrained", "teacher.path=teacher"]
OPTIONS += ["trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "baseline=false"]
SEARCH = ["job=search", "job.epochs=2", "student=from_teacher", *OPTIONS]


def write(folder: Path) -> None:
    write_tsv(folder, 3)
    write_stop(folder)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    write(folder)
    return folder


def refused(folder: Path, capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit):
        call_in(folder, *arguments)
    return capsys.readouterr().err


def result(run: Path) -> dict:
    return json.loads((run / "search.json").read_text())


def weights(run: Path) -> list[int]:
    """The trials whose weights are there."""
    found = (run / "trials").glob("*/student/model.safetensors")
    return sorted(int(path.parent.parent.name) for path in found)


@pytest.fixture(scope="module")
def searched(work):
    """One whose last student cannot be made: the teacher has three layers."""
    options = ["job.space.student.layers=[9,1,2]", "job.space.optimizer.lr=[1e-9,1e-2]"]
    call_in(work, *SEARCH, *options, "job.prune=false", "hydra.run.dir=searched")
    return work / "searched"


def test_every_student_is_tried_once_and_one_that_cannot_be_made_has_its_reason(searched):
    trials = result(searched)["trials"]
    tried = sorted((t["params"]["student.layers"], t["params"]["optimizer.lr"]) for t in trials)
    assert tried == [(layers, lr) for layers in (1, 2, 9) for lr in (1e-9, 1e-2)]
    for trial in trials:
        failed = trial["params"]["student.layers"] == 9
        assert trial["state"] == ("failed" if failed else "complete")
        assert not failed or "3" in trial["reason"]
        assert failed or trial["validations"] == 2


def test_its_figures_are_those_of_the_files_and_models(searched):
    sizes = {}
    for trial in result(searched)["trials"]:
        if trial["state"] != "complete":
            continue
        folder = searched / trial["folder"]
        with (folder / "metrics.csv").open() as file:
            values = [row["val/accuracy"] for row in csv.DictReader(file)]
        assert trial["metric"] == pytest.approx(max(float(v) for v in values if v))
        layers = trial["params"]["student.layers"]
        expected = sum(
            p.numel() for p in bert(layers, 16, num_labels=2, **vocabulary(searched)).parameters()
        )
        assert trial["parameters"] == expected
        assert trial["size_mb"] == pytest.approx(4e-6 * expected, rel=0.02)
        assert trial["latency_ms"] > 0
        sizes[layers] = trial["parameters"]
    assert sizes[1] < sizes[2]


def vocabulary(run: Path) -> dict[str, int]:
    return {"vocab_size": AutoConfig.from_pretrained(run.parent / "teacher").vocab_size}


def test_the_metric_is_that_of_the_weights_that_are_kept(work):
    words = ["sparsity=magnitude", "sparsity.start=0.5", "sparsity.stop=0.9", "monitor=val/loss"]
    space = ["job.space.sparsity.amount=[0.95]", "optimizer.lr=1e-9", "student.layers=3"]
    call_in(work, *SEARCH, *words, *space, "hydra.run.dir=sparse")
    (trial,) = result(work / "sparse")["trials"]
    folder = work / "sparse" / trial["folder"]
    with (folder / "metrics.csv").open() as file:
        values = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    kept = json.loads((folder / "result.json").read_text())
    # Two epochs: dense, and with all zeros in place.
    assert len(values) == 2 and values[0] != values[1]
    assert trial["metric"] == kept["best"] == pytest.approx(values[1])
    assert kept["checkpoint"].endswith(f"step-{kept['kept_step']}.ckpt")


def test_bits_count_where_megabytes_are_an_objective(work):
    pytest.importorskip("torchao", reason="pip install 'lightning-distill[quantization]'")
    words = ["student.layers=1", "job.objectives=[metric,size_mb]", "hydra.run.dir=rounded"]
    call_in(work, *SEARCH, *words, "job.space.student.quantization=[null,int8_weights]")
    found = result(work / "rounded")
    assert found["objectives"] == ["metric", "size_mb"]
    plain, rounded = sorted(
        found["trials"], key=lambda t: t["params"]["student.quantization"] or ""
    )
    assert plain["parameters"] == rounded["parameters"]
    assert rounded["size_mb"] < plain["size_mb"]
    # The smaller one is beaten by none.
    assert rounded["best"]


def test_only_what_nobody_beats_keeps_its_weights(searched):
    found = result(searched)
    done = [t for t in found["trials"] if t["state"] == "complete"]

    def beats(one, other):
        better = one["metric"] >= other["metric"] and one["parameters"] <= other["parameters"]
        return better and (one["metric"], one["parameters"]) != (
            other["metric"],
            other["parameters"],
        )

    front = [t["number"] for t in done if not any(beats(o, t) for o in done)]
    assert sorted(found["best"]) == front == weights(searched)
    assert 0 < len(front) < len(done)
    for trial in found["trials"]:
        folder = searched / trial["folder"]
        assert (folder / "config.yaml").is_file()
        assert (folder / "checkpoints").is_dir() == (trial["number"] in front)


def test_the_teacher_answers_once_for_all_trials(searched):
    assert (searched / "answers" / "manifest.json").is_file()
    for trial in result(searched)["trials"]:
        text = (searched / trial["folder"] / "config.yaml").read_text()
        assert f"folder: {searched / 'answers'}" in text
        assert not (searched / trial["folder"] / "answers").exists()


def test_it_writes_a_table_and_a_picture(searched):
    with (searched / "search.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    trials = result(searched)["trials"]
    assert [int(row["number"]) for row in rows] == [t["number"] for t in trials]
    assert [row["student.layers"] for row in rows] == [
        str(t["params"]["student.layers"]) for t in trials
    ]
    assert (searched / "search.png").read_bytes().startswith(b"\x89PNG")


def test_its_command_trains_the_student_to_the_end(work, searched):
    found = result(searched)
    (chosen,) = [t for t in found["trials"] if t["number"] == found["best"][0]]
    words = shlex.split(chosen["command"])
    assert words[0] == "lightning-distill" and "job" not in chosen["command"]
    call_in(work, *words[1:], "trainer.max_epochs=1", "hydra.run.dir=whole")
    config = AutoConfig.from_pretrained(work / "whole" / "student")
    assert config.num_hidden_layers == chosen["params"]["student.layers"]
    assert (work / "whole" / "report.json").is_file()


def test_more_trials_are_added_to_a_search_that_has_ended(work, capsys):
    space = ["job.space.student.layers=[1,2,3]", "job.trials=2", "hydra.run.dir=more"]
    call_in(work, *SEARCH, *space, "job.objectives=[metric]", "job.steps=2")
    before = result(work / "more")["trials"]
    assert [t["number"] for t in before] == [0, 1]
    capsys.readouterr()
    call_in(work, "resume=more", "job.trials=3")
    after = result(work / "more")["trials"]
    assert after[:2] == before
    assert sorted(t["params"]["student.layers"] for t in after) == [1, 2, 3]
    assert "2 of 3 trials are done" in capsys.readouterr().out
    said = refused(work, capsys, "resume=more", "trainer.max_epochs=9")
    assert "Only more trials may be given: the run has job.trials=3" in said
    # The same folder for other students.
    said = refused(work, capsys, *SEARCH, *space, "job.objectives=[metric]", "job.steps=3")
    assert "more/search.db holds another search: job.steps differ" in said


def test_a_search_of_which_nothing_works_is_one_error(work, capsys):
    said = refused(work, capsys, *SEARCH, "job.space.optimizer.weight_decay=[-1,-2]")
    assert "All 2 trials have failed" in said and "weight_decay" in said


def test_a_teacher_that_each_student_reads_otherwise_is_asked_anew(work, capsys):
    term = [
        "criteria=[soft_target,hint]",
        'criteria.hint.inputs.student="student.hidden_states[*]"',
    ]
    term += ['criteria.hint.inputs.teacher="teacher.hidden_states[*]"', "hydra.run.dir=live"]
    call_in(work, *SEARCH, *term, "job.space.student.layers=[1,2]")
    said = capsys.readouterr().out
    assert (
        "Teacher: asked anew in each trial, for each student is compared with other layers" in said
    )
    assert [t["state"] for t in result(work / "live")["trials"]] == ["complete"] * 2
    assert not (work / "live" / "answers").exists()


def without_times(run: Path) -> list[dict]:
    kept = ("number", "state", "params", "metric", "parameters", "validations", "best", "command")
    return [{name: trial[name] for name in kept} for trial in result(run)["trials"]]


def test_killed_and_resumed_it_tries_what_it_would_have_tried(work):
    options = [*SEARCH, "job.space.optimizer.lr={low: 1e-3, high: 1e-1, log: true}", "job.trials=3"]
    options += ["job.space.student.layers=[1,2,3]", WITH_STOP]
    call_in(work, *options, "hydra.run.dir=left_alone")
    # A trial has four batches: this is the second one of the second trial.
    kill_at(work, 6, *options, "hydra.run.dir=killed")
    assert len(result(work / "killed")["trials"]) == 1
    files = {p: p.stat().st_mtime_ns for p in (work / "killed" / "trials" / "000").glob("*.*")}
    call_in(work, "resume=killed")
    assert without_times(work / "killed") == without_times(work / "left_alone")
    assert len(without_times(work / "killed")) == 3
    # What had ended was not begun again.
    assert files == {p: p.stat().st_mtime_ns for p in files}
