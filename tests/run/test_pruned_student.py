"""A smaller student by the command: what it says, what it leaves, and every job with it."""

import json
import re
from pathlib import Path

import pytest
import torch
from texts_on_disk import call_in, losses, write_csv
from transformers import AutoModelForSequenceClassification, AutoTokenizer

pytestmark = pytest.mark.slow

OPTIONS = ["trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"]
OPTIONS += ["callbacks=[best_checkpoint,finite_loss]"]
DATA = ["data=text_files", "data.train=tr.csv", "data.test=te.csv", "data.label=kind"]
DATA += ["data.max_length=9", "data.batch_size=32"]
SMALLER = ["student=pruned", "student.parameters=40%", "student.keep=importance"]
TEACHER = ["teacher=pretrained", "teacher.path=teacher"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_csv(folder, "teacher", 4)
    return folder


@pytest.fixture
def call(folder, capsys):
    def run(name: str, *arguments: str) -> tuple[Path, str]:
        call_in(folder, *arguments, f"hydra.run.dir={name}")
        return folder / name, capsys.readouterr().out

    return run


def rows_of_table(said: str) -> dict[str, list[str]]:
    table = said.split("distance to the teacher's predictions (KL, nats):")[1].splitlines()[1:]
    found = {}
    for line in table:
        cells = re.split(r" {2,}", line.strip())
        found[cells[0]] = cells[1:]
        if cells[0] == "all":
            return found
    raise AssertionError(said)


def test_a_student_of_forty_percent_is_taught_saved_and_loaded_by_transformers(call, folder):
    run, said = call("live", *DATA, *OPTIONS, *TEACHER, *SMALLER)
    report = json.loads((run / "report.json").read_text())
    sizes = {name: report[name]["parameters"] for name in ("teacher", "student", "baseline")}
    assert sizes["student"] == sizes["baseline"]
    assert abs(sizes["student"] / sizes["teacher"] - 0.4) <= 0.008
    table = rows_of_table(said)
    assert table.pop("cut") == ["from", "to", "parameters", "distance"]
    assert table["layers"][0] == "4" and table["intermediate"][0] == "64"
    assert table["all"][0] == f"{sizes['teacher']:,}" and table["all"][1] == f"{sizes['student']:,}"
    away = {name: float(cells[-1]) for name, cells in table.items()}
    assert all(value > 0 for value in away.values())
    model = AutoModelForSequenceClassification.from_pretrained(run / "student").eval()
    assert sum(p.numel() for p in model.parameters()) == sizes["student"]
    assert model.config.num_hidden_layers == int(table["layers"][1])
    assert model.config.intermediate_size == int(table["intermediate"][1])
    tokens = AutoTokenizer.from_pretrained(run / "student")(["a fine film"], return_tensors="pt")
    call("exported", "job=export", f"job.run={run}", "job.to=out")
    with torch.no_grad():
        again = AutoModelForSequenceClassification.from_pretrained(folder / "out")
        assert torch.equal(again.eval()(**tokens).logits, model(**tokens).logits)
    call("measured", "job=evaluate", "job.path=live")
    again = json.loads((folder / "measured" / "evaluation.json").read_text())
    assert again["accuracy"] == report["student"]["metrics"]["accuracy"]


def test_live_caching_and_cached_teachers_teach_the_same(call, folder):
    if not (folder / "live").is_dir():
        call("live", *DATA, *OPTIONS, *TEACHER, *SMALLER)
    options = [*DATA, *OPTIONS, *SMALLER, "baseline=false"]
    caching, _ = call("caching", *options, "teacher=caching", "teacher.path=teacher")
    cached = [f"teacher.folder={caching}/answers", "teacher=cached", "teacher.path=teacher"]
    read, _ = call("cached", *options, *cached)
    live = losses(folder / "live")
    assert len(live) == 2
    for other in (caching, read):
        assert losses(other) == pytest.approx(live, abs=1e-6)


def test_jobs_without_a_lesson(call):
    cut = ["student=pruned", "student.width=16", "student.layers=2"]
    tuned, said = call("tuned", "job=finetune", *DATA, *OPTIONS, *TEACHER, *cut)
    assert rows_of_table(said)["width"][:2] == ["32 (2 heads)", "16 (1 heads)"]
    config = json.loads((tuned / "student" / "config.json").read_text())
    assert (config["hidden_size"], config["num_attention_heads"]) == (16, 1)
    _, said = call("looked", "job=inspect", *DATA, "trainer.accelerator=cpu", *TEACHER, *cut)
    assert "Layers of the student: 2" in said and "all" in rows_of_table(said)


def test_a_teacher_that_is_trained_first_and_terms_on_layers_of_other_widths(call):
    small = ["teacher.model.hidden_size=32", "teacher.model.num_hidden_layers=3"]
    small += ["teacher.max_epochs=1", "student.importance=gradient", "baseline=false"]
    hint = ["criteria=[hard_label,soft_target,hint]", "criteria.hint.adapter=linear"]
    cut = ["student=pruned", "student.parameters=30%", "student.heads=2"]
    run, said = call("trained", *DATA, *OPTIONS, *small, *hint, *cut)
    # Not of the teacher that had learnt nothing yet.
    assert said.count("Student before training") == 1 and "width" in rows_of_table(said)
    assert len(losses(run)) == 2


def test_a_size_that_cannot_be_is_one_error_before_the_first_step(call, capsys):
    with pytest.raises(SystemExit):
        call("refused", *DATA, *OPTIONS, *TEACHER, "student=pruned", "student.parameters=1%")
    said = capsys.readouterr()
    assert "no student that is cut from this teacher has as many" in said.err + said.out
    assert "Epoch" not in said.out
