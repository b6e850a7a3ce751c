"""Every job on a folder of pictures, with two models that want them in two ways."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from lightning_distill.main import main

pytestmark = pytest.mark.slow

SMALL = [
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "callbacks=[best_checkpoint,last_checkpoint,finite_loss]",
    "optimizer.lr=1e-2",
    "data=image_folder",
    "data.folder=pictures",
    "data.batch_size=8",
]
VIT = ["hidden_size=8", "num_attention_heads=2", "intermediate_size=8", "num_hidden_layers=1"]
STUDENT = ["student=vit", *(f"student.{one}" for one in VIT)]
# Its mean and its size are others than the teacher's.
OWN = ["data.size=8", "data.mean=[0.4,0.4,0.4]"]
AUGMENTED = ["data.augmentation={_target_: lightning_distill.data.CropAndFlip}", "data.views=2"]
AUGMENTED += ["data.mixup=0.5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder, random = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 9), ("test", 9)):
        for i in range(count):
            pixels = random.integers(0, 60, (12, 12, 3)).astype(np.uint8)
            pixels[:, :, i % 3] += 150
            path = folder / "pictures" / split / ["red", "green", "blue"][i % 3] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    def run_(name: str, *arguments: str) -> Path:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(folder / "cache"))
        monkeypatch.setattr(sys, "argv", ["x", *arguments, f"hydra.run.dir={name}"])
        main()
        return folder / name

    return run_


def report(path: Path) -> dict:
    return json.loads((path / "report.json").read_text())


def accuracy_of(path: Path, folder: Path) -> float:
    """Of a saved model, picture by picture, by transformers alone."""
    model = AutoModelForImageClassification.from_pretrained(path).eval()
    processor = AutoImageProcessor.from_pretrained(path)
    right = []
    for file in sorted((folder / "pictures" / "test").rglob("*.png")):
        with torch.no_grad():
            logits = model(**processor(Image.open(file), return_tensors="pt")).logits
        right.append(model.config.id2label[int(logits.argmax())] == file.parent.name)
    return float(np.mean(right))


def losses(path: Path) -> list[float]:
    lines = [line.split(",") for line in (path / "metrics.csv").read_text().splitlines()]
    at = lines[0].index("train/soft_target")
    return [float(line[at]) for line in lines[1:] if line[at]]


def test_every_job_and_every_teacher(run, folder):
    tuned = run("tuned", *SMALL, "job=finetune", *STUDENT, "trainer.max_epochs=6")
    saved = json.loads((tuned / "student" / "preprocessor_config.json").read_text())
    assert saved["size"] == {"height": 12, "width": 12}
    teacher = ["teacher.path=tuned/student", *STUDENT, *OWN, *AUGMENTED]
    live = run("live", *SMALL, "teacher=pretrained", *teacher, "metrics=[accuracy,agreement]")
    found = report(live)
    assert found["baseline"] is not None and found["student"]["agreement"] is not None
    expected = accuracy_of(live / "student", folder)
    assert found["student"]["metrics"]["accuracy"] == pytest.approx(expected)
    # The same teacher by itself and from what it has answered.
    of_teacher = accuracy_of(tuned / "student", folder)
    assert found["teacher"]["metrics"]["accuracy"] == pytest.approx(of_teacher)
    run("answers", *SMALL, "job=cache", "job.folder=kept", "teacher=pretrained", *teacher)
    again = {
        "cached": ["teacher=cached", "teacher.folder=kept", *teacher],
        "caching": ["teacher=caching", *teacher],
    }
    for name, options in again.items():
        made = run(name, *SMALL, *options, "baseline=false")
        assert losses(made) == pytest.approx(losses(live), abs=1e-6)
    evaluated = run("evaluated", "job=evaluate", "job.path=live")
    of_job = json.loads((evaluated / "evaluation.json").read_text())["accuracy"]
    assert of_job == pytest.approx(expected)
    run("exported", "job=export", "job.run=live", "job.to=out")
    assert accuracy_of(folder / "out", folder) == pytest.approx(expected)
    inspected = run("inspected", "job=inspect", "job.run=live")
    shapes = json.loads((inspected / "layers.json").read_text())
    assert shapes["student"]["classifier"] == shapes["teacher"]["classifier"] == "8x3"


def test_a_teacher_that_is_trained_on_the_spot_keeps_its_own_size(run, folder):
    trained = ["teacher=trained_vit", "teacher.max_epochs=1"]
    trained += [f"teacher.model.{one}" for one in VIT]
    options = [*STUDENT, *OWN, "data.teacher_image_processor=tuned/student", "baseline=false"]
    run("spot", *SMALL, *trained, *options)
    (config,) = (folder / "cache" / "teachers").glob("*/config.json")
    assert json.loads(config.read_text())["image_size"] == 12
    said = json.loads(config.with_name("preprocessor_config.json").read_text())
    assert said["size"] == {"height": 12, "width": 12} and said["image_mean"] == [0.5] * 3
    of_student = json.loads((folder / "spot" / "student" / "config.json").read_text())
    assert of_student["image_size"] == 8


def test_a_broken_picture_stops_the_command_before_training(run, folder, capsys):
    bad = folder / "pictures" / "train" / "red" / "bad.jpg"
    bad.write_bytes(b"")
    try:
        with pytest.raises(SystemExit):
            run("stopped", *SMALL, "job=finetune", *STUDENT)
        assert "bad.jpg" in (said := capsys.readouterr().err) and "the file is empty" in said
    finally:
        bad.unlink()
