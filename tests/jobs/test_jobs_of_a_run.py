"""Jobs that are given a run's directory take its data, task, tokenizer and models from there."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from tiny import bert

from lightning_distill.data.text.word_pieces import train_word_pieces
from lightning_distill.main import main

pytestmark = pytest.mark.slow

WORDS = ["fine", "poor", "long", "loud"]
OPTIONS = ["trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"]
OPTIONS += ["callbacks=[best_checkpoint,finite_loss]", "+trainer.limit_train_batches=2"]
STUDENT = ["student.hidden_size=16", "student.num_attention_heads=2", "student.num_hidden_layers=1"]
STUDENT += ["student.intermediate_size=16"]
DATA = ["data=text_files", "data.train=tr.csv", "data.test=te.csv", "data.label=kind"]
DATA += ["data.max_length=9"]


def table(path: Path, rows: int, start: int = 0) -> None:
    numbers = range(start, start + rows)
    lines = [f"a {WORDS[i % 4]} film number {i} {WORDS[i // 4 % 4]},{'xy'[i % 2]}" for i in numbers]
    path.write_text("\n".join(["text,kind", *lines]) + "\n")


def call(folder: Path, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("LIGHTNING_DISTILL_CACHE", str(folder.parent / "cache"))
        patch.setattr(sys, "argv", ["x", *arguments])
        main()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Where a run was made, and where jobs are typed; files of one name hold other rows there."""
    root = tmp_path_factory.mktemp("runs")
    here, there = root / "here", root / "there"
    for folder in (here, there):
        folder.mkdir()
    table(there / "tr.csv", 48)
    table(there / "te.csv", 20, start=60)
    table(here / "te.csv", 8)
    table(here / "more.csv", 12, start=90)
    texts = [line.split(",")[0] for line in (there / "tr.csv").read_text().splitlines()[1:]]
    tokenizer = train_word_pieces(texts, 90, 32)
    teacher = bert(2, 16, num_labels=2, vocab_size=len(tokenizer))
    teacher.config.id2label, teacher.config.label2id = {0: "x", 1: "y"}, {"x": 0, "y": 1}
    teacher.save_pretrained(there / "teacher")
    tokenizer.save_pretrained(there / "teacher")
    from_teacher = ["teacher=pretrained", "teacher.path=teacher", *STUDENT, *OPTIONS, *DATA]
    call(there, *from_teacher, "baseline=false", "hydra.run.dir=run")
    call(there, "job=finetune", *STUDENT, *OPTIONS, *DATA, "hydra.run.dir=tuned")
    return here, there


@pytest.fixture
def job(folders, tmp_path, capsys):
    """Types a job, and gives the folder that it wrote and what it said."""

    def run(*arguments: str) -> tuple[Path, str]:
        call(folders[0], *arguments, "trainer.accelerator=cpu", f"hydra.run.dir={tmp_path}")
        return tmp_path, capsys.readouterr().out

    return run


@pytest.fixture
def refused(folders, tmp_path, capsys):
    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            call(folders[0], *arguments, "trainer.accelerator=cpu", f"hydra.run.dir={tmp_path}")
        return capsys.readouterr().err

    return run


def evaluation(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


def accuracy(run: Path) -> float:
    return json.loads((run / "report.json").read_text())["student"]["metrics"]["accuracy"]


@pytest.mark.parametrize("name", ["run", "run/student", "tuned"])
def test_a_run_is_measured_on_its_own_data(folders, job, name):
    _, there = folders
    run = there / name
    written, said = job("job=evaluate", f"job.path=../there/{name}")
    of_run = there / name.partition("/")[0]
    assert evaluation(written)["accuracy"] == pytest.approx(accuracy(of_run))
    assert evaluation(written)["path"] == str(run if name == "run/student" else run / "student")
    assert f"of {of_run}" in said and "as typed" not in said
    saved = (written / "config.yaml").read_text()
    assert "max_length: 9" in saved and "train: tr.csv" in saved


@pytest.mark.parametrize("more", [[], ["data=text_files"]])
def test_what_is_typed_wins_and_its_paths_hold_from_here(folders, job, more):
    here, _ = folders
    written, said = job("job=evaluate", "job.path=../there/run", "data.test=te.csv", *more)
    assert "as typed: data.test" in said
    saved = (written / "config.yaml").read_text()
    assert f"test: {here / 'te.csv'}" in saved and "label: kind" in saved


def test_several_data_sets_are_measured_in_one_call(folders, job):
    _, there = folders
    tests = f"job.tests={{own: {there / 'te.csv'}, other: more.csv}}"
    written, said = job("job=evaluate", "job.path=../there/run", tests)
    found = evaluation(written)["tests"]
    assert list(found) == ["own", "other"]
    assert found["own"]["accuracy"] == pytest.approx(accuracy(there / "run"))
    for name in found:
        assert f"{found[name]['loss']:.4f}" in said
    alone, _ = job("job=evaluate", "job.path=../there/run", "data.test=more.csv")
    assert evaluation(alone)["loss"] == pytest.approx(found["other"]["loss"])
    # In a list they are called as they are typed.
    listed, _ = job("job=evaluate", "job.path=../there/run", f"job.tests=[{there / 'te.csv'}]")
    assert evaluation(listed)["tests"] == {str(there / "te.csv"): found["own"]}


def test_a_run_that_is_older_than_a_key_or_lost_its_record_is_measured(folders, job, tmp_path):
    _, there = folders
    old = tmp_path / "old"
    shutil.copytree(there / "run", old)
    (old / "run.json").unlink()
    lines = (old / "config.yaml").read_text().splitlines()
    kept = [line for line in lines if "num_labels" not in line and "gradient_check" not in line]
    text = "\n".join(kept).replace("tr.csv", str(there / "tr.csv"))
    (old / "config.yaml").write_text(text.replace("te.csv", str(there / "te.csv")) + "\n")
    written, _ = job("job=evaluate", f"job.path={old}")
    assert evaluation(written)["accuracy"] == pytest.approx(accuracy(old))


def test_a_models_folder_alone_asks_for_data(folders, refused, job, tmp_path):
    _, there = folders
    plain = tmp_path / "plain"
    shutil.copytree(there / "run" / "student", plain)
    said = refused("job=evaluate", f"job.path={plain}")
    assert f"{plain} is a model and no run, so nothing says on which rows" in said
    assert "data=text_files" in said and "asyncio" not in said
    data = [f"data.train={there / 'tr.csv'}", f"data.test={there / 'te.csv'}", "data.label=kind"]
    written, _ = job("job=evaluate", f"job.path={plain}", "data=text_files", *data)
    assert evaluation(written)["accuracy"] == pytest.approx(accuracy(there / "run"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["job=evaluate", "job.path=../there/run", "data.tset=x.csv"],
         "has no data.tset: its data is lightning_distill.data.TextFiles, with text, test"),
        (["job=evaluate", "job.path=../there/run", "job.tests=te.csv"],
         "`job.tests` must name one data set or more"),
        (["job=evaluate", "job.path=../there/run", "job.tests=[a]", "data=docstrings"],
         "job.tests are values of data.test, and lightning_distill.data.Docstrings has no such"),
        (["job=cache", "job.run=nowhere"], "`job.run` must be the directory of a run"),
        (["job=cache", "job.run=../there/run", "teacher.pth=x"], "has no teacher.pth: its teach"),
    ],
)  # fmt: skip
def test_what_a_run_does_not_have_is_refused(refused, arguments, words):
    assert words in refused(*arguments)


def test_a_cache_holds_the_answers_of_the_runs_teacher_to_its_rows(folders, job):
    _, there = folders
    written, said = job("job=cache", "job.run=../there/run")
    assert f"configuration of {there / 'run'}" in said and "answers 68 rows" in said
    assert (written / "answers").is_dir()
    about = json.loads((written / "answers" / "manifest.json").read_text())
    assert "BertForSequenceClassification" in json.dumps(about) and "teacher" in json.dumps(about)


def test_the_student_of_a_run_without_a_teacher_teaches(folders, job):
    _, there = folders
    _, said = job("job=cache", "job.run=../there/tuned")
    student = there / "tuned" / "student"
    assert f"it has no teacher, so its student is the teacher: {student}" in said
    assert "answers 68 rows" in said


def test_the_models_of_a_run_are_looked_at(folders, job):
    written, _ = job("job=inspect", "job.run=../there/run")
    layers = json.loads((written / "layers.json").read_text())
    assert layers["suggested_mapping"] == [["bert.encoder.layer.0", "bert.encoder.layer.1"]]
    rows, tokens, width = layers["student"]["bert.embeddings"].split("x")
    # Of the first batch, which may be the short one.
    assert (rows in ("32", "11"), 4 < int(tokens) < 12, width) == (True, True, "16")


def test_an_export_is_proved_on_a_made_up_row_where_the_data_are_gone(folders, job):
    here, there = folders
    moved = there / "moved.csv"
    (there / "te.csv").rename(moved)
    try:
        _, said = job("job=export", "job.run=../there/run", "job.to=out")
    finally:
        moved.rename(there / "te.csv")
    assert "rows of the run cannot be read (There is no file te.csv" in said
    assert "on a made-up row" in said
    assert (here / "out" / "model.safetensors").is_file()


def test_the_teacher_of_a_run_is_found_and_not_trained_again(folders, job, capsys):
    _, there = folders
    small = [f"teacher.model.{option.partition('.')[2]}" for option in STUDENT]
    trained = ["teacher.max_epochs=1", *small, *STUDENT, *OPTIONS, *DATA]
    call(there, *trained, "baseline=false", "scheduler=constant", "hydra.run.dir=trained")
    assert "Teacher: training once" in capsys.readouterr().out
    _, said = job("job=cache", "job.run=../there/trained")
    assert "Teacher: found in" in said and "training once" not in said
