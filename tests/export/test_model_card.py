"""The card of an exported model says what the files of its run say, and nothing else."""

import re

import pytest
import yaml

from lightning_distill.export import Facts, model_card, Written

CONFIG = {
    "seed": 7,
    "teacher": {"_target_": "lightning_distill.teachers.pretrained", "path": "org/large"},
    "student": {"_target_": "lightning_distill.students.from_teacher", "layers": 2},
    "data": {"_target_": "lightning_distill.data.TextFiles", "train": "/home/me/secret.csv"},
    "criteria": {
        "soft_target": {
            "_target_": "lightning_distill.Term",
            "weight": 0.9,
            "inputs": {"student": "student.logits"},
            "criterion": {"_target_": "x.SoftTarget", "temperature": 4.0},
        },
        "plain": {"_target_": "lightning_distill.Term"},
    },
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.002},
    "trainer": {"_target_": "lightning.Trainer", "max_epochs": 3, "max_steps": -1},
}
ROW = {"parameters": 1234, "size_mb": 1.0, "latency_ms": 2.0, "parts": {}}
REPORT = {
    "metric": "accuracy",
    "higher_is_better": True,
    "teacher": {**ROW, "name": "teacher", "metrics": {"accuracy": 0.91}, "agreement": None},
    "baseline": {**ROW, "name": "student alone", "metrics": {"accuracy": 0.8}, "agreement": 0.75},
    "student": {**ROW, "name": "student distilled", "metrics": {"accuracy": 0.88, "f1": 0.5},
                "agreement": 0.9},
    "facts": {"seed": "7", "train rows": "1,000"},
    "gap_closed": 0.7273,
}  # fmt: skip
FILES = [
    Written("safetensors", "float32", "model.safetensors", 1.5, 3.25, 0.0, 0.0),
    Written("onnx", "float32", "model.onnx", 1.6, 0.5, 2e-7, 1e-7),
    Written("onnx", "int8", "model.int8.onnx", 0.4, 0.4, 0.02, 0.01, 0.98),
    Written("torch_export", "float32", "model.pt2", 1.6, 1.0, 0.0, 0.0),
    Written("torch_export", "int8", "model.int8.pt2", 0.5, 2.0, 0.03, 0.02, 1.0),
]


def card(**changes) -> str:
    known = {
        "name": "BertForSequenceClassification",
        "task": "classification",
        "config": CONFIG,
        "report": REPORT,
        "record": {"typed": {"seed": 7}, "folder": "/home/me"},
        "checkpoint": "best-epoch-2.ckpt",
        "files": FILES,
        "inputs": ("input_ids", "attention_mask"),
        "outputs": ("logits",),
        "versions": {"torch": "2.13.0"},
        "pipeline_tag": "text-classification",
        "auto_class": "AutoModelForSequenceClassification",
        "processors": ("AutoTokenizer",),
    }
    return model_card(Facts(**(known | changes)))


def front_matter(text: str) -> dict:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_front_matter_is_that_of_the_hub_and_names_no_licence():
    assert front_matter(card()) == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "base_model": "org/large",
        "tags": ["knowledge-distillation"],
    }
    assert "license" not in card() and "licence" not in card()
    assert "pipeline_tag" not in front_matter(card(pipeline_tag=None))


@pytest.mark.parametrize(
    ("student", "teacher", "folders", "base"),
    [
        # Of a configuration alone nothing is derived.
        ({"_target_": "x.from_config"}, "org/large", (), None),
        ({"_target_": "x.pretrained", "path": "org/small"}, "org/large", (), "org/small"),
        ({"_target_": "x.from_teacher"}, "bert-base", (), "bert-base"),
        ({"_target_": "x.from_teacher"}, "runs/teacher", ("runs/teacher",), None),
        ({"_target_": "x.from_teacher"}, "/home/me/models/large", (), None),
        ({"_target_": "x.from_teacher"}, None, (), None),
    ],
)
def test_the_base_model_is_one_of_the_hub_that_the_student_is_made_of(
    student, teacher, folders, base
):
    config = {**CONFIG, "student": student, "teacher": {"_target_": "x.y", "path": teacher}}
    text = card(config=config, folders=folders)
    assert front_matter(text).get("base_model") == base
    # Folders are somebody's own.
    assert "/home/me" not in text


def test_every_figure_is_one_of_a_file_and_says_so():
    text = card()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[c.strip() for c in row.strip("|").split("|")] for row in rows]
    assert ["teacher", "1,234", "0.9100", "", ""] in cells
    assert ["student alone", "1,234", "0.8000", "", "0.7500"] in cells
    assert ["student distilled", "1,234", "0.8800", "0.5000", "0.9000"] in cells
    assert ["`model.int8.onnx`", "0.40", "0.40", "2.0e-02", "0.9800"] in cells
    assert "All of it is of `report.json`" in text and "0.7273" in text
    for said in (
        "- teacher: `pretrained` of `org/large` (`config.yaml`)",
        "- train rows: 1,000 (`report.json`)",
        "- criterion `soft_target`: weight=0.9, temperature=4.0 (`config.yaml`)",
        "- criterion `plain`: as it is by default (`config.yaml`)",
        "- optimizer: AdamW, lr=0.002 (`config.yaml`)",
        "- trainer: Trainer, max_epochs=3 (`config.yaml`)",
        "- seed, as it was typed: 7 (`run.json`)",
        "Versions (`export.json`): torch 2.13.0.",
    ):
        assert said in text.splitlines(), said


def test_a_run_without_report_has_no_figures():
    text = card(report=None, record={}, checkpoint="last.ckpt")
    assert "The run has no `report.json`: it was stopped, or failed" in text
    assert "- seed: 7 (`config.yaml`)" in text and "The run has no `run.json`" in text
    assert "0.9100" not in text and "of `report.json`" not in text
    assert "may be others than those measured" in card(checkpoint="last.ckpt")
    assert "may be others than those measured" not in card()


def test_each_format_is_loaded_as_it_is_written():
    text = card()
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(code, "card", "exec")
    for words in (
        "AutoModelForSequenceClassification.from_pretrained(FOLDER)",
        'InferenceSession("FOLDER/model.onnx")',
        'torch.export.load("FOLDER/model.pt2").module()',
        "model(input_ids=input_ids, attention_mask=attention_mask)",
        "`model.int8.pt2` needs the package torchao.",
    ):
        assert words in text
    alone = card(files=FILES[:1])
    assert "onnx" not in alone and "torch.export" not in alone and "int8" not in alone
