"""Models of each kind from the command: cut from the teacher, distilled, inspected, exported."""

import json
import sys
from pathlib import Path

import pytest
import torch
from students.families import batch_for, FAMILIES, Family, halved, typed
from transformers import AutoConfig

from lightning_distill.export import example_inputs
from lightning_distill.jobs.inspect import layers_of, suggested
from lightning_distill.main import main

MINE = """
import lightning as L, torch
from torch.utils.data import DataLoader

BATCHES = torch.load("batches.pt", weights_only=True)


class Data(L.LightningDataModule):
    def __init__(self, task):
        super().__init__()
        self.task, self.num_labels = task, 3

    def loader(self):
        return DataLoader(BATCHES, batch_size=None)

    train_dataloader = val_dataloader = test_dataloader = loader
"""
AUTO = {
    "rows": "AutoModelForSequenceClassification",
    "tokens": "AutoModelForCausalLM",
    "pairs": "AutoModelForSeq2SeqLM",
    "sounds": "AutoModelForSpeechSeq2Seq",
    "pictures": "AutoModelForImageClassification",
}
NAMES = ["DeBERTa-v2", "Mamba", "T5", "ResNet"]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Types a job beside a teacher of this family and batches that it reads."""

    def run(family: Family, *arguments: str) -> Path:
        if not (tmp_path / "mine.py").exists():
            (tmp_path / "mine.py").write_text(MINE)
            torch.save([batch_for(family, seed) for seed in range(4)], tmp_path / "batches.pt")
            family.build().save_pretrained(tmp_path / "teacher")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.delitem(sys.modules, "mine", raising=False)
        monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))
        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        known = [*arguments, "trainer.accelerator=cpu", f"hydra.run.dir={folder}"]
        monkeypatch.setattr(sys, "argv", ["x", *known])
        main()
        return folder

    return run


@pytest.mark.slow
@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name in NAMES], ids=lambda f: f.name)
def test_it_is_cut_and_distilled_and_exported(family, job, capsys):
    of_rows = family.batch in ("rows", "pictures")
    task = "classification" if of_rows else "language_modelling"
    models = ["~data", "+data._target_=mine.Data", f"+data.task={task}", "teacher=pretrained"]
    models += ["teacher.path=teacher", f"teacher.auto_class={AUTO[family.batch]}"]
    models += ["student=from_teacher", f"student.layers={typed(family.layers)}"]
    terms = ["criteria=[hard_label,soft_target,hint]", "criteria.hint.inputs.mask=null"]
    terms += [
        f"criteria.hint.inputs.{role}='{role}.{family.states[-1]}[*]'"
        for role in ("student", "teacher")
    ]
    metrics = [] if of_rows else ["metrics=[perplexity,agreement]"]
    run = job(family, *models, *terms, *metrics, "trainer.max_epochs=1", "baseline=false")
    found = json.loads((run / "report.json").read_text())
    assert all(
        found[name]["flops"] and found[name]["latency_ms"] for name in ("student", "teacher")
    )
    assert AutoConfig.from_pretrained(run / "student").architectures == [family.model]
    if family.name == "T5":
        inspected = json.loads(
            (job(family, "job=inspect", *models, *metrics) / "layers.json").read_text()
        )
        assert {
            name: len(paths) for name, paths in inspected["layers"]["student"].items()
        } == family.layers
        assert ["decoder.block.0", "decoder.block.3"] in inspected["suggested_mapping"]
    capsys.readouterr()
    job(family, "job=export", f"job.run={run}", f"job.to={run / 'exported'}")
    assert "reloaded logits differ by 0.0e+00 on 4 test rows" in capsys.readouterr().out
    assert (run / "exported" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["BERT", "T5", "Swin", "CLIP", "ALBERT"])
def test_layers_are_named_and_paired_stack_by_stack(name):
    family = next(family for family in FAMILIES if family.name == name)
    teacher = family.build()
    student = halved(family, teacher)
    ours, theirs = layers_of(student), layers_of(teacher)
    expected = [
        [f"{path}.{new}", f"{path}.{old}"]
        for path, numbers in family.kept.items()
        for new, old in enumerate(numbers)
    ]
    names = {"T5": ["encoder", "decoder"], "CLIP": ["text", "vision"]}
    names["Swin"] = [f"stage {i}" for i in range(4)]
    assert list(ours) == list(theirs) == names.get(name, [""])
    shared = ["albert.encoder.albert_layer_groups.0"] * 2
    assert suggested(ours, theirs) == (expected or [shared])


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.batch != "both"], ids=lambda f: f.name)
def test_a_made_up_row_is_there_for_an_export_without_data(family):
    model = family.build()
    with torch.no_grad():
        assert model(**example_inputs(model))[0].isfinite().all()
