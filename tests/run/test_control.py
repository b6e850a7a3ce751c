"""A control learns the teacher's answers to other rows, wherever these come from."""

import json

import pytest
import torch
from safetensors.torch import load_file
from texts_on_disk import call_in, losses, write_tsv
from transformers import AutoModelForSequenceClassification

pytestmark = pytest.mark.slow

DATA = ["data=text_files", "data.train=rows.tsv", "data.validation=rows.tsv", "data.test=rows.tsv"]
OPTIONS = [*DATA, "data.batch_size=12", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"]
OPTIONS += ["trainer.max_epochs=2", "baseline=false", "control=true"]
STUDENT = ["student=from_teacher", "student.layers=1"]
LIVE = ["teacher=pretrained", "teacher.path=teacher", *STUDENT]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    write_tsv(folder, 2)
    # With opinions, or else one row's answer would be another's.
    teacher = AutoModelForSequenceClassification.from_pretrained(folder / "teacher")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    teacher.save_pretrained(folder / "teacher")
    call_in(folder, *OPTIONS, *LIVE, "hydra.run.dir=live")
    return folder


def test_its_steps_are_the_same_from_a_cache_and_are_no_distillation(work):
    call_in(work, *OPTIONS, *LIVE, "job=cache", "job.folder=kept", "hydra.run.dir=kept_by")
    path = ["teacher.path=teacher", *STUDENT]
    kept = ["teacher=cached", "teacher.folder=kept", *path]
    call_in(work, *OPTIONS, *kept, "hydra.run.dir=cached")
    call_in(work, *OPTIONS, "teacher=caching", *path, "hydra.run.dir=caching")
    expected = losses(work / "live" / "control")
    assert len(expected) == 4 and expected != pytest.approx(losses(work / "live"), abs=1e-3)
    for name in ("cached", "caching"):
        assert losses(work / name / "control") == pytest.approx(expected, abs=1e-6)
        assert losses(work / name) == pytest.approx(losses(work / "live"), abs=1e-6)


def test_the_student_of_the_run_is_the_distilled_one(work):
    call_in(work, *OPTIONS, *LIVE, "control=false", "hydra.run.dir=without")
    ours, theirs = (
        load_file(work / run / "student" / "model.safetensors") for run in ("live", "without")
    )
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    report = json.loads((work / "live" / "report.json").read_text())
    assert report["control"]["name"] == "taught other rows" and report["baseline"] is None
    assert "what the answers say of each row" in (work / "live" / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["criteria=[hard_label]"], "and nothing here learns of a teacher. Choose one"),
        (["data.batch_size=1"], "of the same batch, and a batch has one row."),
        (["module=theseus"], "takes more of the teacher than its answers. Leave control=true"),
    ],
)
def test_what_would_be_no_control_is_refused_before_the_first_step(work, capsys, options, words):
    with pytest.raises(SystemExit):
        call_in(work, *OPTIONS, *LIVE, *options, "hydra.run.dir=refused")
    said = capsys.readouterr()
    assert words in " ".join(said.err.split()) and "Epoch" not in said.out
