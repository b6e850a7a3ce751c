"""Small files of texts with labels, a model that fits them, and the command in their folder."""

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import bert

from lightning_distill.data.text.word_pieces import train_word_pieces
from lightning_distill.main import main

WORDS = ["fine", "poor", "long", "loud"]


def write_csv(folder: Path, name: str, layers: int, **settings: Any) -> None:
    """`tr.csv` and `te.csv` with columns text and kind, and a model of width 32 in `name`."""
    for file, rows in (("tr", range(48)), ("te", range(60, 80))):
        lines = [
            f"a {WORDS[i % 4]} film number {i} {WORDS[i // 4 % 4]},{'xy'[i % 2]}" for i in rows
        ]
        (folder / f"{file}.csv").write_text("\n".join(["text,kind", *lines]) + "\n")
    texts = [line.split(",")[0] for line in (folder / "tr.csv").read_text().splitlines()[1:]]
    _write_model(folder / name, texts, (90, 32), ("x", "y"), layers, 32, **settings)


def write_tsv(folder: Path, layers: int) -> None:
    """`rows.tsv` with columns text and label, and a model of width 16 in `teacher`."""
    words = [["good", "fine"], ["bad", "poor"]]
    rows = [(f"a {words[i % 2][i % 4 // 2]} film {i}", ("good", "bad")[i % 2]) for i in range(24)]
    lines = ["text\tlabel", *("\t".join(row) for row in rows)]
    (folder / "rows.tsv").write_text("\n".join(lines) + "\n")
    texts = [text for text, _ in rows]
    _write_model(folder / "teacher", texts, (100, 16), ("bad", "good"), layers, 16)


def losses(run: Path) -> list[float]:
    """What was logged of the loss of a training, step by step."""
    with (run / "metrics.csv").open() as file:
        return [float(r["train/loss"]) for r in csv.DictReader(file) if r.get("train/loss")]


def _write_model(
    folder: Path,
    texts: list[str],
    vocabulary: tuple[int, int],
    labels: tuple[str, str],
    layers: int,
    width: int,
    **settings: Any,
) -> None:
    tokenizer = train_word_pieces(texts, *vocabulary)
    model = bert(layers, width, num_labels=2, vocab_size=len(tokenizer), **settings)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: i for i, label in enumerate(labels)}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def call_in(folder: Path, *arguments: str) -> None:
    """The command, as if it was typed in the folder; its teachers are kept there too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("COLUMNS", "150")
        patch.setenv("LIGHTNING_DISTILL_CACHE", str(folder / "cache"))
        patch.setattr(sys, "argv", ["x", *arguments])
        try:
            main()
        finally:
            # Another test may have other files of the same names.
            for name, module in list(sys.modules.items()):
                if str(getattr(module, "__file__", None) or "").startswith(f"{folder}/"):
                    del sys.modules[name]
