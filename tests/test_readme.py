"""What the README shows works as it stands there."""

import re
import sys
from pathlib import Path

import torch
from tiny import bert, loader, text_batches

from lightning_distill.main import main

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


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


def test_the_criterion_of_ones_own(monkeypatch, tmp_path):
    criterion = next(b for b in blocks("python") if "class LogCosh" in b)
    (tmp_path / "my_criteria.py").write_text(criterion)
    folder = tmp_path / "my_configs" / "criteria"
    folder.mkdir(parents=True)
    (config,) = blocks("yaml")
    (folder / "log_cosh.yaml").write_text(config)
    (typed,) = re.findall(r"`lightning-distill (--config-dir my_configs .*?)`", README)
    rows = [f"a {w} film {i}\t{label}" for i in range(12) for w, label in (("fine", 1), ("sad", 0))]
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    small = "data=text_files data.train=train.tsv data.validation=dev.tsv trainer.max_epochs=1 "
    small += "teacher.max_epochs=1 teacher.model.num_hidden_layers=1 baseline=false "
    small += "hydra.run.dir=run trainer.accelerator=cpu"
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["x", *typed.replace("'", "").split(), *small.split()])
    main()
    assert "val/log_cosh" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
