"""`job=export` writes a run's student in all formats, with a card, and says what it found."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from lightning_distill.main import main

pytestmark = pytest.mark.slow

SMALL = ["student.hidden_size=8", "student.num_attention_heads=2", "student.num_hidden_layers=1"]
SMALL += ["student.intermediate_size=8", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
FILES = ["model.safetensors", "int8/model.safetensors", "model.onnx", "model.int8.onnx"]
FILES += ["model.pt2", "model.int8.pt2"]


def onnx_logits(names):
    """What the first block computed, for the second one gives its result the same name."""
    texts = ["a text", "another, longer one"]
    tokens = dict(names["read"](texts, padding=True, return_tensors="np"))
    return names["session"].run(None, tokens)[0]


def test_all_formats_of_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))
    words = ["fine", "poor", "long", "loud"]
    rows = [f"a {words[i % 4]} film {'very ' * (i % 3)}{i},{'xy'[i % 2]}" for i in range(40)]
    for name, some in (("train", rows), ("test", rows[:20])):
        Path(f"{name}.csv").write_text("\n".join(["text,kind", *some]) + "\n")

    def call(*typed: str) -> str:
        monkeypatch.setattr(sys, "argv", ["x", *typed])
        main()
        return capsys.readouterr().out

    data = ["data=text_files", "data.train=train.csv", "data.test=test.csv", "data.label=kind"]
    call("job=finetune", *data, *SMALL, "hydra.run.dir=run")
    formats = "job.formats=[safetensors,onnx,torch_export]"
    said = call("job=export", "job.run=run", formats, "job.quantization=int8", "hydra.run.dir=job")
    folder = tmp_path / "run" / "export"
    found = json.loads((folder / "export.json").read_text())
    assert [file["file"] for file in found["files"]] == FILES
    assert found["compared_on"] == "20 test rows of the run"
    assert {"torch", "onnxruntime", "torchao"} <= set(found["versions"])
    for file in found["files"]:
        (line,) = (x for x in said.splitlines() if f"export/{file['file']} from best" in x)
        assert "reloaded logits differ by" in line and "ms for one row (median)" in line
        assert file["size_mb"] == (folder / file["file"]).stat().st_size / 1e6
        assert file["difference"] < (0.1 if file["numbers"] == "int8" else 1e-5)
        share = file["same_predictions"]
        assert (0.5 < share <= 1) if file["numbers"] == "int8" else share is None
    card = (folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "text-classification"
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert f"| {report['student']['metrics']['accuracy']:.4f} |" in card
    assert str(tmp_path) not in card and "kind=cross_entropy" in card
    # All of it is sealed, the card and the figures too.
    sums = (folder / "SHA256SUMS").read_text()
    assert all(name in sums for name in (*FILES, "README.md", "export.json"))
    # The page reads these files, and its own words are run.
    guide = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", guide, re.DOTALL | re.MULTILINE):
        exec(block.replace("FOLDER", str(folder)), names)
    assert np.abs(names["logits"].detach().numpy() - onnx_logits(names)).max() < 1e-4
    # What was written before is not taken for a file of this export.
    (tmp_path / "run" / "report.json").unlink()
    call("job=export", "job.run=run", "job.formats=safetensors", "hydra.run.dir=job")
    assert [name for name in FILES if (folder / name).exists()] == ["model.safetensors"]
    assert "The run has no `report.json`" in (folder / "README.md").read_text()
    with pytest.raises(SystemExit):
        call("job=export", "job.run=run", "job.formats=onx", "hydra.run.dir=job")
    assert "got 'onx'. Did you mean onnx?" in capsys.readouterr().err
