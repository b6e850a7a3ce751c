"""debug=true tries a whole run on one batch, and leaves nothing that a run could go on from."""

import pytest
from texts_on_disk import call_in, write_csv

DATA = (
    *("data=text_files", "data.train=tr.csv", "data.validation=te.csv", "data.test=te.csv"),
    *("data.label=kind", "data.tokenizer=teacher", "trainer.accelerator=cpu", "data.batch_size=8"),
)
STUDENT = ("student.num_hidden_layers=1", "student.hidden_size=16", "student.intermediate_size=32")
TEACHER = ("teacher=pretrained", "teacher.path=teacher")
FRESH = (
    *("teacher=trained", "teacher.model.hidden_size=16", "teacher.model.num_hidden_layers=1"),
    "teacher.model.intermediate_size=32",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("debug")
    write_csv(made, "teacher", 2)
    return made


def newest(folder, job):
    return max((folder / "runs" / job).iterdir())


def tried(folder, *words, job="distill"):
    """What is said of a run that is tried, and the files that it leaves."""
    call_in(folder, f"job={job}", "debug=true", *DATA, *STUDENT, *words)
    run = newest(folder, job)
    files = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    kept = {name for name in files if not name.startswith(".hydra/")}
    return (run / "log.txt").read_text().splitlines(), kept


@pytest.mark.slow
def test_a_distillation_is_tried_and_nothing_is_left_of_it(folder, capsys):
    said, kept = tried(folder, *TEACHER)
    shown = capsys.readouterr().out
    assert [w in shown for w in ("student.logits", "teacher.logits", "batch.labels")] == [True] * 3
    assert "hard_label, soft_target" in shown
    (last,) = [line for line in said if line.startswith("Debug: one batch of training")]
    assert "train/soft_target" in last and "val/accuracy" in last
    # What every run writes of itself; no checkpoint, no student, no result, no curve.
    assert kept <= {"config.yaml", "run.json", "log.txt"}
    with pytest.raises(SystemExit):
        call_in(folder, f"resume={newest(folder, 'distill')}")
    assert "keeps nothing to go on from" in capsys.readouterr().err


@pytest.mark.slow
def test_stages_finetuning_and_teachers_that_are_not_there(folder, capsys):
    stages = "stages=[{criteria:[hint],name:layers},{criteria:[hard_label,soft_target]}]"
    said, kept = tried(folder, *TEACHER, "criteria=[hard_label,soft_target,hint]", stages)
    assert sum(line.startswith("Debug: ") for line in said) == 2
    shown = capsys.readouterr().out
    assert "Stage 1 of 2, layers" in shown and "student.hidden_states[-1]" in shown
    assert not any("ckpt" in name for name in kept)

    said, kept = tried(folder, job="finetune")
    shown = capsys.readouterr().out
    assert "student.logits" in shown and "teacher" not in shown
    assert kept <= {"config.yaml", "run.json", "log.txt"}

    said, _ = tried(folder, *FRESH)
    assert "Teacher: fresh weights, for none is kept, and debug=true trains none" in said
    assert not list((folder / "cache").rglob("*.safetensors"))

    # Neither does one that keeps its answers keep those of a batch.
    said, _ = tried(folder, "teacher=caching", "teacher.path=teacher",
                    "teacher.folder=answers")  # fmt: skip
    assert any(line.startswith("Debug: ") for line in said)
    assert not list(folder.glob("answers/*shard*"))


@pytest.mark.parametrize("job", ["export", "evaluate", "check", "compare", "cache", "search"])
def test_what_is_no_training_is_not_tried(job, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call_in(tmp_path, f"job={job}", "debug=true")
    said = capsys.readouterr().err
    assert "it is for job=distill and job=finetune, got job=" + job in said


def test_a_new_run_is_tried_and_none_that_goes_on(tmp_path, capsys):
    with pytest.raises(SystemExit):
        call_in(tmp_path, "debug=true", "resume=auto")
    assert "goes on with one: leave out one" in capsys.readouterr().err
