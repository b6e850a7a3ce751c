"""A LightningDataModule of the user's own, of the first level: whatever its batches and lengths."""

import json
import re
import sys
from pathlib import Path

import pytest
from tiny import bert

from lightning_distill.main import main

pytestmark = pytest.mark.slow

MINE = """
from dataclasses import dataclass
import lightning as L, torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import BatchEncoding

IDS = torch.randint(5, 40, (24, 7), generator=torch.Generator().manual_seed(0))
ROWS = [(ids, (ids[0] > 20).long()) for ids in IDS]


@dataclass
class Batch:
    input_ids: torch.Tensor
    labels: torch.Tensor


class Stream(IterableDataset):
    def __iter__(self):
        return iter(ROWS)


def collate(kind, rows):
    ids, labels = (torch.stack(part) for part in zip(*rows))
    entries = {"input_ids": ids, "labels": labels}
    makers = {"encoding": BatchEncoding, "mapping": dict, "stream": dict}
    if kind == "dataclass":
        return Batch(ids, labels)
    return (ids, labels) if kind == "pair" else makers[kind](entries)


class Data(L.LightningDataModule):
    task, num_labels = "classification", 2

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def loader(self):
        from functools import partial
        rows = Stream() if self.kind == "stream" else ROWS
        return DataLoader(rows, batch_size=8, collate_fn=partial(collate, self.kind))

    train_dataloader = val_dataloader = test_dataloader = loader
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    path = tmp_path / "conf" / "data" / "mine.yaml"
    path.write_text("_target_: mine.Data\nkind: ???\n")
    for name, layers in (("teacher", 2), ("student", 1)):
        bert(layers, 8, seed=layers, num_labels=2, vocab_size=40).save_pretrained(tmp_path / name)

    def run_(*arguments: str) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.delitem(sys.modules, "mine", raising=False)
        monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))
        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        common = ["--config-dir", "conf", "data=mine", "trainer.accelerator=cpu"]
        common += ["student=pretrained", "student.path=student", f"hydra.run.dir={folder}"]
        common += ["trainer.max_epochs=2", "trainer.log_every_n_steps=1"]
        monkeypatch.setattr(sys, "argv", ["x", *common, *arguments])
        main()
        return folder

    return run_


KINDS = ["mapping", "encoding", "pair", "dataclass", "stream"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_distils_trains_measures_and_inspects(run, kind):
    own = f"data.kind={kind}"
    teacher = ["teacher=pretrained", "teacher.path=teacher", own]
    folder = run(*teacher, "scheduler=constant")
    results = [folder / "result.json", folder / "baseline" / "result.json"]
    first, alone = (json.loads(path.read_text()) for path in results)
    assert first["steps"] == alone["steps"] == 6
    assert first["validations"] == alone["validations"] == 2
    assert (folder / "report.md").is_file()
    run("job=finetune", own, "scheduler=constant")
    measured = run("job=evaluate", f"job.path={folder}", own)
    assert json.loads((measured / "evaluation.json").read_text())["accuracy"] >= 0
    assert (run("job=inspect", *teacher) / "layers.json").is_file()


CACHE = ["job=cache", "teacher=pretrained", "teacher.path=teacher"]
MISSING = "Data lacks fingerprint"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["teacher=trained"], f"teacher=trained trains a teacher once .* {MISSING}"),
        (CACHE, f"job=cache walks over the rows .* {MISSING}, preprocessing"),
    ],
    ids=["trained", "cache"],
)
def test_a_job_that_needs_more_says_what_before_anything_is_trained(
    run, arguments, words, capsys, monkeypatch
):
    monkeypatch.setattr("lightning.Trainer.fit", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(SystemExit):
        run("data.kind=mapping", *arguments)
    said = "".join(capsys.readouterr()).replace("\n", " ")
    assert re.search(words, said), said
