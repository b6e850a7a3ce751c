"""Every job with a teacher and a student of timm, which want their pictures in two ways."""

import json

import pytest
from jobs.test_pictures import accuracy_of, AUGMENTED, folder, losses, report, run, SMALL  # noqa: F401
from timm_there import weights_file

from lightning_distill.cache import AnswerStore

pytestmark = pytest.mark.slow

TEACHER = ["teacher=timm", "teacher.name=test_resnet", "teacher.path=weights.safetensors"]
STUDENT = ["student=timm", "student.name=test_efficientnet", "data.size=32"]


@pytest.fixture(autouse=True, scope="module")
def weights(folder):  # noqa: F811
    return weights_file(folder / "weights.safetensors")


def test_jobs_of_timm(run, folder):  # noqa: F811
    live = run("timm", *SMALL, "trainer.max_epochs=1", *TEACHER, *STUDENT, *AUGMENTED)
    found = report(live)
    measured = found["student"]["metrics"]["accuracy"]
    assert measured == pytest.approx(accuracy_of(live / "student", folder))
    assert {"baseline", "student", "teacher"} <= found.keys()
    config = json.loads((live / "student" / "config.json").read_text())
    assert config["architecture"] == "test_efficientnet"
    assert config["label_names"] == ["blue", "green", "red"]
    said = json.loads((live / "student" / "preprocessor_config.json").read_text())
    assert said["size"] == {"height": 32, "width": 32}

    again = run("evaluated", "job=evaluate", "job.path=timm")
    of_job = json.loads((again / "evaluation.json").read_text())["accuracy"]
    assert of_job == pytest.approx(measured)
    exported = run("exported", "job=export", "job.run=timm", "job.to=written")
    assert exported and accuracy_of(folder / "written", folder) == pytest.approx(measured)
    run("looked", "job=inspect", "job.run=timm")


def test_live_cached_and_caching_teachers_of_timm_give_the_same_loss(run, folder):  # noqa: F811
    options = [*SMALL, *STUDENT, *AUGMENTED, "baseline=false", "trainer.max_epochs=1"]
    live = losses(run("live", *options, *TEACHER))
    run("answers", "job=cache", *options, *TEACHER)
    # Each model has its own size: what timm says of the teacher, what is typed for the student.
    made = AnswerStore(folder / "answers" / "answers").about["preprocessing"]
    assert made["teacher_image_processor"]["height"] == 160
    assert made["student_image_processor"]["height"] == 32
    cached = losses(run("cached", *options, "teacher=cached", "teacher.folder=answers/answers"))
    of = [one.replace("teacher.", "teacher.of.") for one in TEACHER[1:]]
    caching = ["teacher=caching", "teacher@teacher.of=timm", *of]
    assert len(live) > 2
    assert cached == pytest.approx(live, abs=1e-6)
    assert losses(run("caching", *options, *caching)) == pytest.approx(live, abs=1e-6)
