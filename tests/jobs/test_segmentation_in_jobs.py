"""Every job on masks, with the data module of the guide."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs.test_pictures import losses
from transformers import AutoModelForSemanticSegmentation

from lightning_distill.main import main

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[2] / "docs" / "tasks" / "segmentation.md"
SMALL = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"]
SMALL += ["callbacks=[best_checkpoint,last_checkpoint,finite_loss]", "optimizer.lr=1e-2"]
DATA = ["~data", "+data._target_=mine.masks.Masks", "+data.folder=.", "+data.num_labels=3"]
SIZES = ["num_encoder_blocks=1", "depths=[1]", "hidden_sizes=[8]", "sr_ratios=[1]"]
SIZES += ["patch_sizes=[3]", "strides=[2]", "mlp_ratios=[1]", "num_attention_heads=[1]"]
MODEL = ["student=segformer", "student.decoder_hidden_size=8"]
MODEL += [f"student.{size}" for size in SIZES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder, random = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    (code,) = re.findall(r"```python\n(# mine/masks\.py\n.*?)```", GUIDE.read_text(), re.DOTALL)
    (folder / "mine").mkdir()
    (folder / "mine" / "masks.py").write_text(code)
    for split, count in (("train", 12), ("validation", 6), ("test", 6)):
        masks = random.integers(0, 3, (count, 8, 8)).astype(np.uint8)
        pictures = np.eye(3, dtype=np.float32)[masks].transpose(0, 3, 1, 2)
        masks[:, 0] = 255
        np.savez(folder / f"{split}.npz", pictures=pictures, masks=masks)
    return folder


@pytest.fixture(autouse=True)
def without_mine():
    """Other tests have a file of this name, and a process imports one of them."""

    def forget():
        for name in [n for n in sys.modules if n.partition(".")[0] == "mine"]:
            del sys.modules[name]

    forget()
    yield
    forget()


def iou_of(path: Path, folder: Path) -> float:
    """Of a saved model, by transformers alone."""
    model = AutoModelForSemanticSegmentation.from_pretrained(path).eval()
    found = np.load(folder / "test.npz")
    with torch.no_grad():
        logits = model(pixel_values=torch.from_numpy(found["pictures"])).logits
    logits = torch.nn.functional.interpolate(logits, (8, 8), mode="bilinear")
    ours, known = logits.argmax(1).numpy()[:, 1:], found["masks"][:, 1:]
    both = [((ours == c) & (known == c)).sum() for c in range(3)]
    either = [((ours == c) | (known == c)).sum() for c in range(3)]
    return float(np.mean(np.array(both) / np.array(either)))


def test_every_job_and_every_teacher(folder, monkeypatch):
    def run(name: str, *arguments: str) -> Path:
        monkeypatch.setattr(sys, "argv", ["x", *arguments, f"hydra.run.dir={name}"])
        main()
        return folder / name

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(folder / "cache"))
    run("tuned", "job=finetune", *SMALL, *DATA, *MODEL)
    teacher = ["teacher=pretrained", "teacher.path=tuned/student"]
    live = run("live", *SMALL, *DATA, *MODEL, *teacher)
    report = json.loads((live / "report.json").read_text())
    expected = iou_of(live / "student", folder)
    assert report["student"]["metrics"]["mean_iou"] == pytest.approx(expected)
    assert report["baseline"] is not None and report["student"]["agreement"] is not None

    run("answers", "job=cache", "job.folder=kept", *SMALL, *DATA, *MODEL, *teacher)
    options = [*SMALL, *DATA, *MODEL, "baseline=false"]
    cached = run("cached", *options, "teacher=cached", "teacher.folder=kept")
    assert losses(cached) == pytest.approx(losses(live), abs=1e-6)

    evaluated = run("evaluated", "job=evaluate", "job.path=live")
    of_job = json.loads((evaluated / "evaluation.json").read_text())["mean_iou"]
    assert of_job == pytest.approx(expected)
    run("exported", "job=export", "job.run=live", "job.to=out")
    assert iou_of(folder / "out", folder) == pytest.approx(expected)
    run("inspected", "job=inspect", "job.run=live")
