"""What the README and its pages show works as it stands there."""

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from tiny import bert, loader, text_batches
from tokenizers_of_text import byte_level, texts, unigram

from lightning_distill.main import main

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/options.md", "docs/python.md")
README = "\n".join((ROOT / page).read_text() for page in PAGES)
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*/*.md")]
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_it_is_read_in_five_minutes():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://", "mailto:")):
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads]


def test_the_python_examples_run_one_after_another(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {
        "student": bert(1, 8, seed=1, num_labels=2),
        "teacher": bert(3, 16, seed=2, num_labels=2),
    }
    for name in ("train_loader", "val_loader"):
        batches = text_batches(rows=4)
        for batch in batches:
            batch["labels"] %= 2
        names[name] = loader(batches)
    before = {k: v.clone() for k, v in names["student"].state_dict().items()}
    code = blocks("python")
    assert len(code) >= 4
    for block in code:
        exec(block, names)
    assert not names["student"].training or names["module"].trainer.global_step > 0
    after = names["student"].state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    assert any("adapters" in name for name, _ in names["objective"].named_parameters())
    batches = list(names["loader_of"](texts()[:9], byte_level(), unigram()))
    assert [len(b["teacher"]["spans"]) for b in batches] == [8, 1]


@pytest.mark.slow
def test_the_criterion_of_ones_own(monkeypatch, tmp_path):
    criterion = next(b for b in blocks("python") if "class LogCosh" in b)
    (tmp_path / "my_criteria.py").write_text(criterion)
    folder = tmp_path / "my_configs" / "criteria"
    folder.mkdir(parents=True)
    (config,) = blocks("yaml")
    (folder / "log_cosh.yaml").write_text(config)
    (typed,) = re.findall(r"`lightning-distill (--config-dir my_configs .*?)`", README)
    write_rows(tmp_path)
    run_small(monkeypatch, tmp_path, *typed.replace("'", "").split())
    assert "val/log_cosh" in rows_of(tmp_path)[0]


def write_rows(folder: Path) -> None:
    rows = [f"a {w} film {i}\t{label}" for i in range(12) for w, label in (("fine", 1), ("sad", 0))]
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")


def run_small(monkeypatch, folder: Path, *typed: str) -> None:
    small = "data=text_files data.train=train.tsv data.validation=dev.tsv trainer.max_epochs=1 "
    small += "teacher.max_epochs=1 teacher.model.num_hidden_layers=2 baseline=false "
    small += "hydra.run.dir=run trainer.accelerator=cpu trainer.log_every_n_steps=1 "
    small += "student.hidden_size=16 teacher.model.hidden_size=16 data.batch_size=6"
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["x", *typed, *small.split()])
    main()


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def typed_in_the_table(wanted: str) -> list[str]:
    """The code of a row of "you want, you write", as a shell would split it."""
    (row,) = re.findall(rf"^\| {re.escape(wanted)} \| (.*) \|$", README, re.MULTILINE)
    return [word for code in re.findall(r"`(.*?)`", row) for word in shlex.split(code)]


@pytest.mark.slow
def test_the_schedule_of_the_table(monkeypatch, tmp_path):
    write_rows(tmp_path)
    typed = typed_in_the_table("a schedule")
    # What is written "after" comes first.
    run_small(monkeypatch, tmp_path, *reversed(typed))
    steps = [row for row in rows_of(tmp_path) if row["train/loss"]]
    weights = [
        (float(r["train/loss"]) - 0.1 * float(r["train/hard_label"]))
        / float(r["train/soft_target"])
        for r in steps
    ]
    # From 1 down to 0 in equal steps.
    expected = [1 - i / (len(steps) - 1) for i in range(len(steps))]
    assert len(steps) == 4
    assert weights == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_every_layer_of_the_table(monkeypatch, tmp_path):
    write_rows(tmp_path)
    typed = typed_in_the_table("every layer, spread evenly")
    run_small(monkeypatch, tmp_path, *typed, "student.num_hidden_layers=2")
    assert "train/hint" in rows_of(tmp_path)[0]


@pytest.mark.slow
def test_what_chooses_the_best_student_in_the_table(monkeypatch, tmp_path):
    write_rows(tmp_path)
    run_small(monkeypatch, tmp_path, *typed_in_the_table("what chooses the best student"))
    found = json.loads((tmp_path / "run" / "report.json").read_text())
    assert found["metric"] == "f1" and found["higher_is_better"]
    assert set(found["student"]["metrics"]) == {"f1", "accuracy"}
